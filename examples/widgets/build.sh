set -eu
echo "building widgets at $COMMIT"
sleep 0.3
echo "built"
