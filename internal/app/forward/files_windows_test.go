package forward_test

import (
	"math"
	"testing"
)

// openFiles is how many files this process may have open.
func openFiles(*testing.T) uint64 { return math.MaxUint64 }
