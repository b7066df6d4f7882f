// Package program runs pre- or post-compute to its exit code, and tells the worker why it failed (iexec-worker 9.2).
//
//	0   done
//	1   failed, and the worker knows why
//	2   failed, and the worker could not be told
//	3   no task: IEXEC_TASK_ID is missing
package program

import (
	"fmt"
	"io"
	"os"
	"strings"

	"sluice/enclaves/internal/ethereum"
	"sluice/enclaves/internal/failure"
	"sluice/enclaves/internal/worker"
)

// Exit codes.
const (
	Done       = 0
	Reported   = 1
	Unreported = 2
	NoTask     = 3
)

// Environment is what a program was started with. It holds secrets: it is never printed.
type Environment map[string]string

// FromOS is the environment of this process.
func FromOS() Environment {
	found := Environment{}
	for _, line := range os.Environ() {
		name, value, _ := strings.Cut(line, "=")
		found[name] = value
	}
	return found
}

// Required is a variable's value, or a failure with this cause if it is missing or empty.
func (e Environment) Required(name string, cause failure.Cause) (string, error) {
	if e[name] == "" {
		return "", failure.New(cause, "%s is not set", name)
	}
	return e[name], nil
}

// Truth is a variable that is true or false, or in the words of older services yes or no; anything else is a failure
// with this cause, since what is kept secret may hang on it.
func (e Environment) Truth(name string, cause failure.Cause) (bool, error) {
	switch strings.ToLower(e[name]) {
	case "true", "yes":
		return true, nil
	case "false", "no":
		return false, nil
	}
	return false, failure.New(cause, "%s is neither true nor false", name)
}

// Stage is one of the two programs: where it reports, and its names for what both can meet.
type Stage struct {
	Name                                            worker.Stage
	WorkerAddress, ChallengeKey, Signature, Unknown failure.Cause
}

// The two programs.
var (
	Pre = Stage{
		worker.Pre,
		failure.PreWorkerAddress, failure.PreChallengeKey, failure.PreSignature, failure.PreUnknown,
	}
	Post = Stage{
		worker.Post,
		failure.PostWorkerAddress, failure.PostChallengeKey, failure.PostSignature, failure.PostUnknown,
	}
)

// Task is what both programs know of their task.
type Task struct {
	ID     string
	Signer ethereum.Signer
	Worker worker.API
}

// Run does the work of a stage and returns the exit code. log gets words for the machine's owner.
func Run(stage Stage, environment Environment, log io.Writer, work func(Task) error) int {
	id := environment["IEXEC_TASK_ID"]
	if id == "" {
		fmt.Fprintln(log, "IEXEC_TASK_ID is not set")
		return NoTask
	}
	task, err := prepared(stage, environment, id)
	if err != nil {
		// Without a key nothing can be signed, and the worker believes no report without a signature.
		fmt.Fprintln(log, err)
		return Unreported
	}
	if err := work(task); err != nil {
		found := failure.Of(err, stage.Unknown)
		fmt.Fprintln(log, found)
		cause := worker.ExitCause{Cause: string(found.Cause), Message: found.Why}
		if err := task.Worker.ReportExit(stage.Name, id, cause); err != nil {
			fmt.Fprintln(log, "the worker could not be told:", err)
			return Unreported
		}
		return Reported
	}
	return Done
}

func prepared(stage Stage, environment Environment, id string) (Task, error) {
	address, err := environment.Required("SIGN_WORKER_ADDRESS", stage.WorkerAddress)
	if err != nil {
		return Task{}, err
	}
	secret, err := environment.Required("SIGN_TEE_CHALLENGE_PRIVATE_KEY", stage.ChallengeKey)
	if err != nil {
		return Task{}, err
	}
	key, err := ethereum.ReadKey(secret)
	if err != nil {
		return Task{}, failure.New(stage.Signature, "%v", err)
	}
	signer, err := ethereum.NewSigner(key, id, address)
	if err != nil {
		return Task{}, failure.New(stage.Signature, "task or worker: %v", err)
	}
	host := environment["WORKER_HOST_ENV_VAR"]
	if host == "" {
		host = worker.DefaultHost
	}
	return Task{id, signer, worker.New(host, signer.Session())}, nil
}
