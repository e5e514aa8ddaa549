//go:build !windows

package pipe_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"bodkin/internal/app/pipe"
)

func shell(script string) pipe.Command { return pipe.Command{Args: []string{"/bin/sh", "-c", script}} }

func TestCommandReadsAndWritesToTheEnds(t *testing.T) {
	t.Parallel()
	a, b := connect()
	done := make(chan error, 1)
	go func() { done <- shell("sort; echo over").Run(t.Context(), a) }()
	go func() { _, _ = io.WriteString(b, "b\na\n"); _ = b.CloseWrite() }()
	if got, err := io.ReadAll(b); string(got) != "a\nb\nover\n" || err != nil {
		t.Errorf("peer read %q, %v", got, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestCommandThatReadsNothing(t *testing.T) {
	t.Parallel()
	a, b := connect()
	done := make(chan error, 1)
	go func() { done <- shell("exec <&-; echo hello; exit 3").Run(t.Context(), a) }()
	if got, err := io.ReadAll(b); string(got) != "hello\n" || err != nil {
		t.Errorf("peer read %q, %v", got, err)
	}
	var exit *exec.ExitError
	if err := <-done; !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Error(err)
	}
	if _, err := b.Write([]byte("late")); !errors.Is(err, errUnread) {
		t.Errorf("nobody reads, and the peer is told %v", err)
	}
}

func TestCommandThatDoesNotExist(t *testing.T) {
	t.Parallel()
	a, b := connect()
	if err := (pipe.Command{Args: []string{"/nonexistent/program"}}).Run(t.Context(), a); err == nil {
		t.Error("no error")
	}
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, errBroken) {
		t.Errorf("the peer is told %v", err)
	}
}

// The shell waits for its child: a signal to the shell alone would not end it.
func TestCommandIsKilled(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		end  func(cancel context.CancelFunc, b *conn)
		want error
	}{
		"when interrupted": {
			func(cancel context.CancelFunc, _ *conn) { cancel() }, context.Canceled,
		},
		"when the peer breaks the connection": {
			func(_ context.CancelFunc, b *conn) { _ = b.Abort() }, pipe.ErrBroken,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := connect()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- shell("echo $$; sleep 1000; true").Run(ctx, a) }()
			line, err := bufio.NewReader(b).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			x.end(cancel, b)
			if err := <-done; !errors.Is(err, x.want) {
				t.Errorf("ended with %v", err)
			}
			pid, err := strconv.Atoi(strings.TrimSpace(line))
			if err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("process %d is still there: %v", pid, err)
			}
		})
	}
}
