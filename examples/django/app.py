"""Digits on a page, with Django: `uvicorn --app-dir examples/django app:application --port 8000`.

The view is a coroutine, and all requests share one client. When a browser leaves, Django cancels
the view; the client then closes its connection, and the server drops the row.
"""

import os
from math import ceil

import django
import numpy as np
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.urls import path
from PIL import Image, UnidentifiedImageError

from batcher.client import AsyncClient, ClientFailure, InferenceFailed

BACKEND = "django.template.backends.django.DjangoTemplates"
# A site with users also needs a SECRET_KEY that is kept, and the middleware for sessions and CSRF.
settings.configure(
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.urandom(32).hex(),
    TEMPLATES=[{"BACKEND": BACKEND}],
)
django.setup()
client = AsyncClient(os.environ.get("INFERENCE_URL", "http://127.0.0.1:8080"), timeout=10)
PAGE = engines["django"].from_string("""<!doctype html>
<title>Digits</title>
<form method="post" enctype="multipart/form-data">
  <label>A digit, as a picture <input type="file" name="picture" accept="image/*" required></label>
  <button>Read</button>
</form>
<p role="status">{{ text }}</p>""")


async def digits(request: HttpRequest) -> HttpResponse:
    if request.method != "POST":
        return HttpResponse(PAGE.render())
    try:
        grey = Image.open(request.FILES["picture"]).convert("L").resize((8, 8))
        image = np.asarray(grey, "f4")[None, None] / 255  # one row of one channel
        scores = (await client.infer("digits", {"image": image})).outputs["scores"][0]
    except (UnidentifiedImageError, KeyError):
        return HttpResponse(PAGE.render({"text": "That is no picture."}), status=400)
    except ClientFailure as failure:
        if not isinstance(failure, InferenceFailed) or failure.retry_after is None:
            return HttpResponse(PAGE.render({"text": "Digits cannot be read now."}), status=502)
        hint = {"Retry-After": str(ceil(failure.retry_after))}
        text = f"Many ask just now. Try again in {hint['Retry-After']} s."
        return HttpResponse(PAGE.render({"text": text}), status=failure.status, headers=hint)
    return HttpResponse(PAGE.render({"text": f"It is a {scores.argmax()} ({scores.max():.0%})."}))


urlpatterns = [path("", digits)]
application = get_asgi_application()
