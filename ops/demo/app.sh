#!/bin/sh
# The demo's app: prints what it was given and leaves a deterministic result.
#   app.sh noop           ends at once with a one-line result
#   app.sh WORDS…         writes the words, the checksum of the dataset, of secrets and of each input file
#   app.sh sleep SECONDS  works for a while first
#   app.sh fail           ends with exit code 1 and no result
set -eu
out="${IEXEC_OUT}/result.txt"
case "${1:-noop}" in
fail) echo "told to fail" >&2; exit 1 ;;
sleep) sleep "$2" ;;
esac
{
    echo "args: $*"
    echo "task index: ${IEXEC_BOT_TASK_INDEX} of ${IEXEC_BOT_SIZE}"
    if [ -f "${IEXEC_IN}/${IEXEC_DATASET_FILENAME}" ]; then
        echo "dataset: $(sha256sum <"${IEXEC_IN}/${IEXEC_DATASET_FILENAME}" | cut -d' ' -f1)"
    fi
    if [ -n "${IEXEC_REQUESTER_SECRET_1:-}" ]; then
        echo "secrets: $(echo "${IEXEC_APP_DEVELOPER_SECRET:-} ${IEXEC_REQUESTER_SECRET_1}" | sha256sum | cut -d' ' -f1)"
    fi
    number=1
    while [ "$number" -le "${IEXEC_INPUT_FILES_NUMBER}" ]; do
        eval "name=\$IEXEC_INPUT_FILE_NAME_${number}"
        echo "input ${number}: $(sha256sum <"${IEXEC_IN}/${name}" | cut -d' ' -f1)"
        number=$((number + 1))
    done
} >"$out"
echo "{\"deterministic-output-path\": \"${out}\"}" >"${IEXEC_OUT}/computed.json"
