#!/bin/sh
# hey: hey.sh [URL]. Closed loop: 64 clients; -q N limits each client to N requests/s.
exec hey -c 64 -n "${REQUESTS:-20000}" -m POST -D "$(dirname "$0")/digit.bin" -T application/octet-stream \
	"${1:-http://127.0.0.1:8080/models/digits/predict}"
