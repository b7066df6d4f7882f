// Package launch becomes another program, as the engine would have started it, with further environment variables.
//
//	standard input   NAME=value 0 NAME=value 0 … 0     an empty variable ends them: without it they are not whole
//	then             execve, in the same process: arguments, user, folder, signals and exit code stay the program's own,
//	                 and its standard input is /dev/null, as in every container of Sluice
package launch

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Exit codes before there is a program.
const (
	// Lost: the variables did not come as a whole. It is Docker's code for a container whose end it did not see.
	Lost = 255
	// NotExecuted: the system does not execute the program. runc's code (255 since its version 1.2).
	NotExecuted = 1
	// NotExecutable, NotFound: Docker's codes for a program that it cannot start.
	NotExecutable = 126
	NotFound      = 127
)

// timeout is the time in which the variables come, which is milliseconds: the worker sends them as soon as the engine
// says that the container runs. An engine that was killed meanwhile may leave its container without anybody who sends.
const timeout = time.Minute

var errCut = errors.New("the variables are not whole")

// Run becomes the program that the arguments name, with the variables in input; it returns an exit code if it cannot.
// log gets words for that, which hold no variable.
func Run(arguments []string, input io.Reader, log io.Writer) int {
	late := time.AfterFunc(timeout, func() { os.Exit(Lost) })
	variables, err := Read(input)
	late.Stop()
	if err != nil {
		return Lost
	}
	for _, each := range variables {
		name, value, _ := strings.Cut(each, "=")
		if os.Setenv(name, value) != nil {
			return Lost
		}
	}
	if len(arguments) == 0 {
		return NotFound
	}
	// As runc does, with the same words.
	program, err := exec.LookPath(arguments[0])
	if err != nil {
		fmt.Fprintln(log, err)
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			return NotFound
		}
		return NotExecutable
	}
	if err := noInput(); err != nil {
		return Lost
	}
	err = syscall.Exec(program, arguments, os.Environ())
	fmt.Fprintf(log, "exec %s: %v\n", program, err)
	return NotExecuted
}

// Read is the variables in input, up to the empty one.
func Read(input io.Reader) ([]string, error) {
	var found []string
	for lines := bufio.NewReader(input); ; {
		each, err := lines.ReadString(0)
		if err != nil {
			return nil, errCut
		}
		each = strings.TrimSuffix(each, "\x00")
		if each == "" {
			return found, nil
		}
		if strings.Index(each, "=") < 1 {
			return nil, errCut
		}
		found = append(found, each)
	}
}

// noInput puts /dev/null in the place of standard input.
func noInput() error {
	null, err := syscall.Open(os.DevNull, syscall.O_RDWR, 0)
	if err != nil || null == 0 {
		return err
	}
	defer syscall.Close(null)
	return syscall.Dup3(null, 0, 0)
}
