//go:build !unix && !windows

package sock

import (
	"errors"
	"fmt"
)

const canLimitHops = false

func sharePort(uintptr) error {
	return fmt.Errorf("share a TCP port: %w on this system", errors.ErrUnsupported)
}

func limitHops(uintptr, bool, int) (int, error) { return 0, errors.ErrUnsupported }
