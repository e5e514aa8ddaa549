// Command bodkin connects two machines behind NATs. See `bodkin help`.
package main

import (
	"os"

	"bodkin/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
