set -eu
for script in *.sh test/*.sh; do
  sh -n "$script"
  echo "$script: ok"
done
