set -eu
echo "deploying $COMMIT (this example deploys nowhere)"
