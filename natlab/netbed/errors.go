package netbed

import "fmt"

// UnavailableError says why there is no lab on this machine, and what to do.
type UnavailableError struct {
	Missing string // what a lab is made of and is not to be had
	Hint    string // what the person can do
	Err     error  // what the system said
}

// Error implements error.
func (e *UnavailableError) Error() string {
	return fmt.Sprintf("no network lab here: %s: %v; %s", e.Missing, e.Err, e.Hint)
}

// Unwrap is what the system said.
func (e *UnavailableError) Unwrap() error { return e.Err }
