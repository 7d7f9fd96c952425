#!/bin/sh
# Used once before the first `docker compose up`. Assumes: nothing; a file that exists is left alone, so running it again
# is harmless. Back up deploy/secrets/pepper: without it every API key is lost.
set -eu
cd "$(dirname "$0")/.."
mkdir -p secrets && chmod 700 secrets
random() { head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
# Readable to the containers' own users, who are not the folder's owner; the folder keeps everybody else out.
keep() { [ -e "secrets/$1" ] || { cat > "secrets/$1" && chmod 444 "secrets/$1" && echo "made deploy/secrets/$1"; }; }
random | keep postgres-password
random | keep redis-password
random | keep grafana-password
head -c 32 /dev/urandom | keep pepper
printf 'postgresql://tollgate:%s@postgres:5432/tollgate' "$(cat secrets/postgres-password)" | keep database-url
printf 'redis://default:%s@redis:6379/0' "$(cat secrets/redis-password)" | keep redis-url
printf 'user default on >%s ~* &* +@all\n' "$(cat secrets/redis-password)" | keep redis-acl
