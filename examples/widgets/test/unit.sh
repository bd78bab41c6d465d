# The unit tests of widgets. Some branches misbehave, so that there is something to see:
#   flaky-*   the first try for a commit fails
#   broken-*  every try fails
#   slow-*    takes a few seconds
set -eu
seen="${BRIGADE_CACHE:-/mnt/brigade/cache}/$COMMIT"
case "$BRANCH" in
  flaky-*)
    if [ ! -e "$seen" ]; then
      : > "$seen"
      echo "not ok 1 - a widget turns (timed out waiting for it)"
      exit 1
    fi
    ;;
  broken-*)
    echo "not ok 1 - a widget turns"
    exit 1
    ;;
  slow-*)
    sleep 5
    ;;
esac
echo "ok 1 - a widget turns"
