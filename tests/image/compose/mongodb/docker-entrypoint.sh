#!/bin/sh
# What the server's own image does before its first start: with an empty data folder, makes the user that two variables
# and a file name (none where it joins a set), by a server that nobody else reaches; then runs the command it is given, with access control.
set -eu
if [ -n "${MONGO_INITDB_ROOT_USERNAME:-}" ] && [ ! -e /data/db/WiredTiger ]; then
    MONGO_INITDB_ROOT_PASSWORD=$(cat "${MONGO_INITDB_ROOT_PASSWORD_FILE:?}")
    export MONGO_INITDB_ROOT_PASSWORD
    mongod --dbpath /data/db --bind_ip 127.0.0.1 --port 27017 --fork --logpath /tmp/first.log --pidfilepath /tmp/first.pid
    mongosh --quiet --host 127.0.0.1 --port 27017 admin --eval '
        db.createUser({
            user: process.env.MONGO_INITDB_ROOT_USERNAME,
            pwd: process.env.MONGO_INITDB_ROOT_PASSWORD,
            roles: [{ role: "root", db: "admin" }],
        })'
    mongod --dbpath /data/db --shutdown
fi
unset MONGO_INITDB_ROOT_USERNAME MONGO_INITDB_ROOT_PASSWORD MONGO_INITDB_ROOT_PASSWORD_FILE
exec "$@" --auth
