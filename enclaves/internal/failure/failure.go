// Package failure names why pre- or post-compute failed, as iExec's worker and scheduler know it (iexec-worker 9.2).
package failure

import (
	"errors"
	"fmt"
)

// Cause is the name of a failure, as it goes over the wire.
type Cause string

// Causes of pre-compute, in the order in which it can meet them.
const (
	PreTaskID            Cause = "PRE_COMPUTE_TASK_ID_MISSING"
	PreWorkerAddress     Cause = "PRE_COMPUTE_WORKER_ADDRESS_MISSING"
	PreChallengeKey      Cause = "PRE_COMPUTE_TEE_CHALLENGE_PRIVATE_KEY_MISSING"
	PreSignature         Cause = "PRE_COMPUTE_INVALID_TEE_SIGNATURE"
	PreOutputPath        Cause = "PRE_COMPUTE_OUTPUT_PATH_MISSING"
	PreOutputFolder      Cause = "PRE_COMPUTE_OUTPUT_FOLDER_NOT_FOUND"
	PreDatasetRequired   Cause = "PRE_COMPUTE_IS_DATASET_REQUIRED_MISSING"
	PreDatasetURL        Cause = "PRE_COMPUTE_DATASET_URL_MISSING"
	PreDatasetKeyMissing Cause = "PRE_COMPUTE_DATASET_KEY_MISSING"
	PreDatasetSum        Cause = "PRE_COMPUTE_DATASET_CHECKSUM_MISSING"
	PreDatasetName       Cause = "PRE_COMPUTE_DATASET_FILENAME_MISSING"
	PreInputNumber       Cause = "PRE_COMPUTE_INPUT_FILES_NUMBER_MISSING"
	PreInputURL          Cause = "PRE_COMPUTE_AT_LEAST_ONE_INPUT_FILE_URL_MISSING"
	PreDatasetDownload   Cause = "PRE_COMPUTE_DATASET_DOWNLOAD_FAILED"
	PreDatasetBadSum     Cause = "PRE_COMPUTE_INVALID_DATASET_CHECKSUM"
	PreDatasetDecryption Cause = "PRE_COMPUTE_DATASET_DECRYPTION_FAILED"
	PreDatasetSaving     Cause = "PRE_COMPUTE_SAVING_PLAIN_DATASET_FAILED"
	PreInputDownload     Cause = "PRE_COMPUTE_INPUT_FILE_DOWNLOAD_FAILED"
	PreUnknown           Cause = "PRE_COMPUTE_FAILED_UNKNOWN_ISSUE"
)

// Causes of post-compute, in the order in which it can meet them.
const (
	PostTaskID        Cause = "POST_COMPUTE_TASK_ID_MISSING"
	PostWorkerAddress Cause = "POST_COMPUTE_WORKER_ADDRESS_MISSING"
	PostChallengeKey  Cause = "POST_COMPUTE_TEE_CHALLENGE_PRIVATE_KEY_MISSING"
	PostSignature     Cause = "POST_COMPUTE_INVALID_TEE_SIGNATURE"
	PostComputedFile  Cause = "POST_COMPUTE_COMPUTED_FILE_NOT_FOUND"
	PostFileName      Cause = "POST_COMPUTE_TOO_LONG_RESULT_FILE_NAME"
	PostZip           Cause = "POST_COMPUTE_OUT_FOLDER_ZIP_FAILED"
	PostDigest        Cause = "POST_COMPUTE_RESULT_DIGEST_COMPUTATION_FAILED"
	PostKeyMissing    Cause = "POST_COMPUTE_ENCRYPTION_PUBLIC_KEY_MISSING"
	PostKeyMalformed  Cause = "POST_COMPUTE_MALFORMED_ENCRYPTION_PUBLIC_KEY"
	PostEncryption    Cause = "POST_COMPUTE_ENCRYPTION_FAILED"
	PostToken         Cause = "POST_COMPUTE_STORAGE_TOKEN_MISSING"
	PostUpload        Cause = "POST_COMPUTE_IPFS_UPLOAD_FAILED"
	PostDropbox       Cause = "POST_COMPUTE_DROPBOX_UPLOAD_FAILED"
	PostSendComputed  Cause = "POST_COMPUTE_SEND_COMPUTED_FILE_FAILED"
	PostUnknown       Cause = "POST_COMPUTE_FAILED_UNKNOWN_ISSUE"
)

// Error is a failure with its reason in words, which never hold a secret.
type Error struct {
	Cause Cause
	Why   string
}

// Error is both, for this program's own log.
func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.Cause, e.Why) }

// New is a failure; why is a format of fmt.
func New(cause Cause, why string, given ...any) error {
	return &Error{Cause: cause, Why: fmt.Sprintf(why, given...)}
}

// Of is err as a failure: itself if it is one, else one of this cause.
func Of(err error, otherwise Cause) *Error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	return &Error{Cause: otherwise, Why: err.Error()}
}
