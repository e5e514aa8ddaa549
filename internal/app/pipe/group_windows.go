package pipe

import "os/exec"

// group leaves a command as it is: it is killed alone.
func group(*exec.Cmd) {}
