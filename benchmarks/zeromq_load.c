/* A closed loop over ZeroMQ: so many requests in flight, each answer looked at. `zeromq.py` builds and
   runs it, since a client in Python would take more of the machine than wrk does for HTTP.

   zeromq_load ADDRESS SOCKETS IN_FLIGHT SECONDS ANSWER_BYTES HEADER_FILE BODY_FILE

   Each request is the id of 8 bytes with the header behind it, and the body as a part of its own. An
   answer is right if its id is that of a request in flight, and one part of ANSWER_BYTES follows.
   Prints requests, seconds, p50 and p99 in ms, and errors. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zmq.h>

#define MOST_SAMPLES (1 << 24)
#define MOST_BYTES (1 << 20)
#define WAIT_MS 30000

static void *sockets[1024];
static double *latencies, *began; /* began: of the request whose id is the index, 0 without one */
static char header[MOST_BYTES], body[MOST_BYTES], answer[MOST_BYTES];
static size_t header_bytes, body_bytes, answer_bytes;
static uint64_t sent, answered, errors;

static double now(void)
{
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec + at.tv_nsec * 1e-9;
}

static void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, zmq_strerror(zmq_errno()));
	exit(1);
}

static size_t contents(const char *path, char *into, size_t most)
{
	FILE *file = fopen(path, "rb");
	if (!file)
		fail(path);
	size_t bytes = fread(into, 1, most, file);
	fclose(file);
	return bytes;
}

static void ask(void *socket, double at)
{
	if (++sent >= MOST_SAMPLES) {
		fprintf(stderr, "expected fewer than %d requests\n", MOST_SAMPLES);
		exit(1);
	}
	memcpy(header, &sent, 8);
	began[sent] = at;
	if (zmq_send(socket, header, header_bytes, ZMQ_SNDMORE) < 0 || zmq_send(socket, body, body_bytes, 0) < 0)
		fail("send");
}

/* Take an answer and ask again; return whether there was one. */
static int take(void *socket, int flags)
{
	uint64_t id = 0;
	int parts = 0, size, more = 1;
	size_t length = sizeof more, last = 0;
	while (more) {
		size = zmq_recv(socket, answer, sizeof answer, parts ? 0 : flags);
		if (size < 0) {
			if (zmq_errno() == EAGAIN && !parts && flags == ZMQ_DONTWAIT)
				return 0;
			fail("receive");
		}
		if (!parts++)
			memcpy(&id, answer, 8);
		last = size;
		zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &length);
	}
	double at = now();
	if (!id || id > sent || !began[id])
		errors++;
	else {
		errors += parts != 2 || last != answer_bytes;
		latencies[answered++] = at - began[id];
		began[id] = 0;
	}
	ask(socket, at);
	return 1;
}

static int ascending(const void *one, const void *other)
{
	double difference = *(const double *)one - *(const double *)other;
	return (difference > 0) - (difference < 0);
}

int main(int count, char **given)
{
	if (count != 8) {
		fprintf(stderr, "expected 7 arguments; got %d\n", count - 1);
		return 2;
	}
	int many = atoi(given[2]), in_flight = atoi(given[3]), wait_ms = WAIT_MS, linger = 0;
	double seconds = atof(given[4]);
	answer_bytes = atol(given[5]);
	header_bytes = 8 + contents(given[6], header + 8, sizeof header - 8);
	body_bytes = contents(given[7], body, sizeof body);
	latencies = calloc(MOST_SAMPLES, sizeof *latencies);
	began = calloc(MOST_SAMPLES, sizeof *began);
	void *context = zmq_ctx_new();
	zmq_pollitem_t *polled = calloc(many, sizeof *polled);
	for (int i = 0; i < many; i++) {
		void *socket = sockets[i] = zmq_socket(context, ZMQ_DEALER);
		zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger);
		zmq_setsockopt(socket, ZMQ_RCVTIMEO, &wait_ms, sizeof wait_ms);
		if (zmq_connect(socket, given[1]) < 0)
			fail("connect");
		polled[i].socket = socket;
		polled[i].events = ZMQ_POLLIN;
	}
	double start = now(), end = start + seconds;
	for (int i = 0; i < in_flight; i++)
		ask(sockets[i % many], now());
	while (now() < end) {
		if (many == 1)
			take(sockets[0], 0);
		else if (zmq_poll(polled, many, WAIT_MS) <= 0)
			fail("poll");
		else
			for (int i = 0; i < many; i++)
				if (polled[i].revents & ZMQ_POLLIN)
					while (take(sockets[i], ZMQ_DONTWAIT))
						;
	}
	seconds = now() - start;
	qsort(latencies, answered, sizeof *latencies, ascending);
	printf("%lu %f %f %f %lu\n", answered, seconds, latencies[answered / 2] * 1e3,
	       latencies[answered * 99 / 100] * 1e3, errors);
	return 0;
}
