#!/bin/sh
# ApacheBench: ab.sh [URL]. Closed loop: 64 clients on kept connections, each sends when its answer has come.
exec ab -q -k -c 64 -n "${REQUESTS:-20000}" -p "$(dirname "$0")/digit.bin" -T application/octet-stream \
	"${1:-http://127.0.0.1:8080/models/digits/predict}"
