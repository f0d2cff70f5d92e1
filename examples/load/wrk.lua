-- One digit as 64 floats in every request. wrk itself only counts answers other than 2xx and 3xx.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/octet-stream"
local file = assert(io.open(os.getenv("DIGIT"), "rb"))
wrk.body = file:read("*all")
file:close()
