package pipe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"time"
)

// Command is a program to connect with.
type Command struct {
	Args   []string // the program first
	Env    []string // nil: ours
	Stderr io.Writer
}

// ErrBroken is wrapped by what Command.Run returns when the peer broke the
// connection off.
var ErrBroken = errors.New("connection broke off")

// mercy is how long a command may take to end once it was told to, and what it
// left behind to write after its own end.
const mercy = 5 * time.Second

// Run runs the command with the connection as its standard input and output, and
// closes the connection when it has ended. The command reads the end that the
// peer writes. When the peer breaks the connection off, or ctx ends, it is told
// to end, with its children, and killed if it has not after 5 seconds.
//
// The peer is not told how the command ended: resetting the connection might
// lose its last words.
func (k Command) Run(ctx context.Context, c Conn) error {
	ctx, abort := context.WithCancelCause(ctx)
	defer abort(nil)
	stop := context.AfterFunc(ctx, func() { _ = c.Abort() })
	defer stop()
	cmd := exec.CommandContext(ctx, k.Args[0], k.Args[1:]...)
	cmd.Env, cmd.Stderr, cmd.WaitDelay = k.Env, k.Stderr, mercy
	cmd.Stdout = struct{ io.Writer }{c} // hides what only a socket has
	group(cmd)
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		_ = c.Abort()
		return err
	}
	go func() {
		read, _ := Copy(stdin, c)
		_ = stdin.Close()
		if read != nil {
			abort(fmt.Errorf("%w: %w", ErrBroken, read))
		}
	}()
	err = cmd.Wait()
	if !stop() {
		return context.Cause(ctx)
	}
	_ = c.Close()
	return err
}
