// Command pre-compute puts the input files and datasets of a confidential task where its app reads them.
package main

import (
	"os"

	"sluice/enclaves/internal/inputs"
	"sluice/enclaves/internal/program"
)

func main() {
	environment := program.FromOS()
	os.Exit(program.Run(program.Pre, environment, os.Stderr, func(program.Task) error {
		plan, err := inputs.ReadPlan(environment)
		if err != nil {
			return err
		}
		return plan.Place()
	}))
}
