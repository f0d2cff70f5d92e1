#!/bin/sh
# wrk: wrk.sh [URL]. Closed loop: 64 connections for 10 s; the fastest of these programs.
DIGIT="$(dirname "$0")/digit.bin" exec wrk -t 1 -c 64 -d "${FOR:-10}s" --latency -s "$(dirname "$0")/wrk.lua" \
	"${1:-http://127.0.0.1:8080/models/digits/predict}"
