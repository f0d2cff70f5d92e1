#!/bin/sh
# Triton's perf_analyzer: perf_analyzer.sh [HOST:PORT]. It finds the model's inputs over the Open Inference Protocol, and sends
# random values: from 1 to 64 requests at a time, doubled each time.
exec perf_analyzer -m digits -u "${1:-127.0.0.1:8080}" -i http --shape image:1,8,8 \
	--concurrency-range "${CONCURRENCY:-1:64:2}" --measurement-interval 2000 --stability-percentage "${STABILITY:-10}"
