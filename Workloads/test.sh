#!/bin/sh
# Tests the workloads themselves: each runs, judges itself well, ends when told, and its oracle can fail.
#   test.sh FOLDER    the folder with the built programs
set -u
programs=${1:?the folder with the built programs}
output=$(mktemp)
trap 'rm -f "$output"' EXIT
failures=0

check() { # check NAME CONDITION...
  name=$1
  shift
  if "$@"; then echo "ok      $name"; else echo "FAILED  $name"; tail -n 2 "$output" | cut -c 1-600; failures=$((failures + 1)); fi
}
found() { grep -q -- "$1" "$output"; }
field() { sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p" "$output" | tail -n 1; }

# Runs a program without a terminal, asks it for a verdict, ends it; `status` is its exit status.
drive() { # drive SECONDS PROGRAM OPTION...
  seconds=$1
  program=$programs/$2
  shift 2
  "$program" "$@" >"$output" 2>&1 </dev/null &
  pid=$!
  sleep "$seconds"
  kill -USR1 $pid
  sleep 0.5
  cp "$output" "$output.verdict"
  kill -TERM $pid
  wait $pid
  status=$?
  mv "$output.verdict" "$output"
}
# Spoils a state and runs the program to its end, which for some comes with the discovery.
spoil() { # spoil PROGRAM KIND SECONDS OPTIONS
  # shellcheck disable=SC2086 # the options are several words
  "$programs/$1" --run-for "$3" --corrupt-after 200 --corrupt-kind "$2" $4 >"$output" 2>&1 </dev/null
  status=$?
}
about() { [ "$1" -ge $(($2 * 95 / 100)) ] && [ "$1" -le $(($2 * 105 / 100)) ]; }

for distribution in uniform sequential zipf; do
  drive 2 dirtier --memory 64M --rate 5000 --distribution $distribution --share 50 --working-set 60
  check "dirtier $distribution is right" found '"oracle":"ok"'
  check "dirtier $distribution ends on SIGTERM" [ $status -eq 0 ]
  check "dirtier $distribution keeps its rate" about "$(($(field writes) * 1000 / ($(field elapsed_us) / 1000)))" 5000
  for kind in bit zero stale both swap; do
    spoil dirtier $kind 1 "--memory 4M --rate 500 --distribution $distribution"
    check "dirtier $distribution notices: $kind" [ $status -eq 3 ] && check "and says so" found '"oracle":"corrupt"'
  done
done
drive 1 dirtier --memory 16M --rate 0 --threads 3 --huge-pages
check "dirtier at full speed is right" found '"oracle":"ok"'
for profile in square sine bursts; do
  drive 2.4 dirtier --memory 64M --rate 5000 --profile $profile --profile-period 200 --write-size 32K
  check "dirtier $profile is right" found '"oracle":"ok"'
  check "dirtier $profile keeps the mean rate" about "$(($(field writes) * 1000 / ($(field elapsed_us) / 1000)))" 5000
  spoil dirtier stale 1 "--memory 4M --rate 500 --profile $profile --write-size 64K"
  check "dirtier $profile notices: stale" [ $status -eq 3 ]
done
# A period's writes are all made in its first tenth: not the constant rate's.
drive 1 dirtier --memory 64M --rate 5000 --profile bursts --profile-period 4000
check "dirtier bursts are bursts" about "$(field writes)" 20000
drive 1 dirtier --memory 16M --rate idle
check "dirtier at rest is right" found '"oracle":"ok"'

drive 2 torture
check "torture is right" found '"oracle":"ok"'
check "torture ends on SIGTERM" [ $status -eq 0 ]
drive 2 torture --operations-per-second 0 --threads 2 --seed 7
check "torture at full speed is right" found '"oracle":"ok"'
for kind in bit zero protection hole; do
  spoil torture $kind 2 ""
  check "torture notices: $kind" [ $status -eq 3 ] && check "and says so" found '"oracle":"corrupt"'
done

drive 3 changer --kinds all
check "changer is right" found '"state":"ok"'
check "changer ends on SIGTERM" [ $status -eq 0 ]
kinds=$(sed -n 's/.*"kinds":{\([^}]*\)}.*/\1/p' "$output" | tail -n 1 | tr ',' '\n' | sed 's/"\([^"]*\)":.*/\1/')
check "changer runs its kinds" [ "$(echo "$kinds" | wc -w)" -ge 30 ]
check "changer changes each of them" eval '! found "\":0[,}]" || ! found "\"kinds\":{[^}]*:0[,}]"'
for kind in $kinds; do
  spoil changer "$kind" 3 "--kinds $kind"
  check "changer notices: $kind" [ $status -eq 3 ] && check "and says so" found '"state":"changed"'
done

# Their clients judge them: Tests/TestbedTests/VehicularTests.swift, ARTests.swift.
for service in vehicular ar; do
  [ $service = vehicular ] && options="--log $output.log" || options=""
  # shellcheck disable=SC2086 # the options are several words
  drive 1 $service --memory 4M --port 7391 $options
  check "$service is ready" found "\"ready\":\"$service\""
  check "$service ends on SIGTERM" [ $status -eq 0 ]
  "$programs/$service" --memory 10 >"$output" 2>&1
  check "$service refuses what is too small" [ $? -eq 2 ]
done
rm -f "$output.log"

[ $failures -eq 0 ] || { echo "$failures failed"; exit 1; }
echo "all passed"
