//go:build !unix

package end

import "time"

// CPUTime is not known here.
func CPUTime() time.Duration { return 0 }
