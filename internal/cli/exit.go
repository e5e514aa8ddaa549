package cli

import (
	"errors"
	"slices"
	"syscall"

	"bodkin"
	"bodkin/internal/app/forward"
	"bodkin/internal/config"
	"bodkin/internal/control"

	"github.com/spf13/cobra"
)

// Exit codes; see exitCodes.
const (
	codeOK           = 0
	codeFailed       = 1
	codeUsage        = 2
	codeNoServer     = 3
	codeNotReachable = 4
	codeRefused      = 5
	codeDisplaced    = 6
	codeInterrupted  = 130
	codeBrokenPipe   = 141
)

const exitCodes = `Exit codes:

    0  it worked
    1  it failed: the message says how; for ping --until-direct and lab, also:
       no direct route in time
    2  the command line, a BODKIN_ variable or the configuration file is wrong
    3  the rendezvous server does not answer, or is not the one of the URL
    4  the peer is unknown to the server, offline, or does not allow this node; or
       it does not answer
    5  the peer refused the connection
    6  another process with the same key accepts connections now
  130  interrupted (Ctrl-C, or a signal to end); up, serve, forward, serve-port and
       map watch end with 0 then
  141  standard output was closed, as head does when it has enough

lab run ends with the code of the first program in it that failed.`

func exitCodesTopic() *cobra.Command {
	return &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitCodes}
}

// codeError is an error with an exit code. With a nil error nothing is printed.
type codeError struct {
	code int
	err  error
}

// Error implements error.
func (e *codeError) Error() string {
	if e.err == nil {
		return "failed"
	}
	return e.err.Error()
}

// Unwrap is the error without its code.
func (e *codeError) Unwrap() error { return e.err }

// said reports whether what an error has to say has been printed already.
func said(err error) bool {
	var coded *codeError
	return errors.As(err, &coded) && coded.err == nil
}

// bookErrors are those of what the command line says about the address book.
var bookErrors = []error{config.ErrBadName, config.ErrKnownPeer, config.ErrNameTaken, config.ErrUnknownPeer}

func codeOf(err error) int {
	var coded *codeError
	var server *bodkin.ServerError
	var refused *bodkin.RefusedError
	var remote *control.Error
	var file *config.Error
	var port *forward.RefusedError
	switch {
	case err == nil:
		return codeOK
	case errors.As(err, &coded):
		return coded.code
	case errors.As(err, &file), slices.ContainsFunc(bookErrors, func(e error) bool { return errors.Is(err, e) }):
		return codeUsage
	case errors.Is(err, syscall.EPIPE):
		return codeBrokenPipe
	case errors.As(err, &port):
		return codeRefused
	case errors.As(err, &remote):
		return remoteCode(remote.Kind)
	case errors.As(err, &server):
		return codeNoServer
	case errors.Is(err, bodkin.ErrNotReachable), errors.Is(err, bodkin.ErrNoAnswer):
		return codeNotReachable
	case errors.As(err, &refused):
		return codeRefused
	case errors.Is(err, bodkin.ErrDisplaced):
		return codeDisplaced
	default:
		return codeFailed
	}
}

// remoteCode is the code of an error that a running node met for us.
func remoteCode(kind string) int {
	switch kind {
	case control.KindServer:
		return codeNoServer
	case control.KindNotReachable:
		return codeNotReachable
	case control.KindRefused:
		return codeRefused
	case control.KindDisplaced:
		return codeDisplaced
	default:
		return codeFailed
	}
}
