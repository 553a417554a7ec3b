#!/bin/sh
# The gateway by curl, as its users type it: gateway_curl.sh URL ADMIN_KEY USER_KEY
set -eu
url=$1 admin=$2 user=$3

# What curl prints; an HTTP status of 400 or more ends the script.
ask() {
    curl --silent --show-error --fail --max-time 60 "$@"
}

# The status alone.
status_of() {
    curl --silent --max-time 60 --output /dev/null --write-out '%{http_code}' "$@"
}

expect() {
    what=$1 found=$2
    shift 2
    for wanted in "$@"; do
        case $found in
            *"$wanted"*) ;;
            *) echo "expected $what with $wanted, and found: $found" >&2; exit 1 ;;
        esac
    done
}

expect "a sign of life" "$(ask "$url/health")" '"status"'
expect "the models" "$(ask "$url/api/models" -H "Authorization: Bearer $user")" 'llama3.2'
expect "no models without a key" "$(status_of "$url/api/models")" 401
expect "no models with a wrong key" "$(status_of "$url/api/models" -H "Authorization: Bearer nobody")" 401

answer=$(ask -X POST "$url/api/generate" -H "Authorization: Bearer $user" -H "Content-Type: application/json" -d '{
    "model": "llama3.2", "prompt": "What is machine learning?", "temperature": 0.7, "stream": false
}')
expect "an answer" "$answer" '"response":' '"done":true'

# Without "stream", and yet one object: a key was sent.
answer=$(ask -X POST "$url/api/chat" -H "Authorization: Bearer $user" -H "Content-Type: application/json" -d '{
    "model": "llama3.2", "temperature": 0.7,
    "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "What is the capital of France?"}]
}')
expect "a chat" "$answer" '"message":' '"role":"assistant"' '"done":true'
expect "one object" "$(printf '%s\n' "$answer" | wc -l | tr -d ' ')" 1

expect "statistics" "$(ask "$url/api/stats" -H "Authorization: Bearer $user")" '"requests":2' '"total_tokens":'
expect "no list of keys for a user" "$(status_of "$url/api/keys" -H "Authorization: Bearer $user")" 403

made=$(ask -X POST "$url/api/keys" -H "Authorization: Bearer $admin" -H "Content-Type: application/json" -d '{
    "name": "Production", "role": "user", "rate_limit": 500
}')
expect "a key" "$made" '"name":"Production"' '"role":"user"' '"rate_limit":500'
key=$(printf '%s' "$made" | sed -n 's/.*"key": *"\([^"]*\)".*/\1/p')
id=$(printf '%s' "$made" | sed -n 's/.*"id": *"\([0-9a-f]\{8\}-[0-9a-f-]\{27\}\)".*/\1/p')
expect "the key's id in the list" "$(ask "$url/api/keys" -H "Authorization: Bearer $admin")" "\"$id\""
expect "models for the new key" "$(ask "$url/api/models" -H "Authorization: Bearer $key")" 'llama3.2'
expect "the end of the key" "$(ask -X DELETE "$url/api/keys/$id" -H "Authorization: Bearer $admin")" '"is_active":false'
expect "nothing for the key that was revoked" "$(status_of "$url/api/models" -H "Authorization: Bearer $key")" 401
expect "the document" "$(ask "$url/openapi.json")" '"openapi"'
