//go:build !linux

package sock

// limitUnsent does nothing: the system's send buffer is the bound.
func limitUnsent(uintptr) {}

func unlimitUnsent(uintptr) {}
