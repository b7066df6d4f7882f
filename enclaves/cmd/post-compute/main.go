// Command post-compute digests, encrypts, signs and stores what the app of a confidential task has left.
package main

import (
	"os"

	"sluice/enclaves/internal/program"
	"sluice/enclaves/internal/result"
)

func main() {
	environment := program.FromOS()
	os.Exit(program.Run(program.Post, environment, os.Stderr, func(task program.Task) error {
		return result.Finish(result.OutputFolder, environment, task)
	}))
}
