// Command launcher starts the program of a container with variables that come through its standard input, so that no
// engine has them in the container's configuration.
package main

import (
	"os"

	"sluice/enclaves/internal/launch"
)

func main() {
	os.Exit(launch.Run(os.Args[1:], os.Stdin, os.Stderr))
}
