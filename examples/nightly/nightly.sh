#!/bin/sh
# One job each night: the rows of a day through a model, from one folder of a store into another.
#
#     nightly.sh MODEL s3://bucket/in s3://bucket/out [DAY]
#
# reads s3://bucket/in/DAY.jsonl and writes s3://bucket/out/DAY.jsonl; DAY is yesterday (UTC) if it
# is left out. A day that could not be finished is noted in the folder WORK, and goes on with the
# next start, before the new day. README.md beside this file has the lines for cron and systemd.
#
#     status   means
#     0        each row of each day has an answer
#     3        some rows have none: s3://bucket/out/DAY.jsonl.errors.jsonl names them
#     1        a day could not be finished; the next start goes on with that day
#     75       the job of an earlier start still runs: nothing was done
#     130      a signal has stopped the job; the next start goes on
set -u
[ $# -ge 3 ] || { echo "usage: nightly.sh MODEL s3://bucket/in s3://bucket/out [DAY]" >&2; exit 2; }
model=$1 input=${2%/} output=${3%/} day=${4:-$(date -u -d yesterday +%F)}
work=${WORK:-$HOME/.cache/batcher/nightly}
end=${END:-jsonl}

mkdir -p "$work/unfinished"
exec 9>"$work/lock"
flock -n 9 || { echo "nightly: an earlier start still runs" >&2; exit 75; }

# A signal is handed on: the command notes how far it is, and ends.
child=
trap '[ -z "$child" ] || kill -TERM "$child"; stopped=1' INT TERM
stopped= status=0

touch "$work/unfinished/$day"
for note in "$work/unfinished/"*; do # in the order of the days
	[ -z "$stopped" ] || break
	day=${note##*/}
	echo "nightly: $day"
	batcher run "$model" "$input/$day.$end" "$output/$day.$end" --work "$work" 9>&- &
	child=$!
	[ -z "$stopped" ] || kill -TERM "$child" # came before the child had a number
	wait "$child"
	ended=$?
	# A signal ends the first wait, not the command.
	if [ -n "$stopped" ]; then wait "$child"; ended=$?; fi
	child=
	case $ended in
		0) rm "$note" ;;
		3) rm "$note"; [ "$status" -eq 1 ] || status=3 ;;
		130) stopped=1 ;;
		*) status=1 ;;
	esac
done
[ -z "$stopped" ] || status=130
echo "nightly: ended with status $status"
exit "$status"
