//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// contender sends a file from one host to another.
type contender interface {
	name() string
	prepare(ctx context.Context, b *bed) error
	send(ctx context.Context, b *bed, file, to string) (cpu time.Duration, err error)
}

// cpuOf is what a process that has ended has computed, with its children.
func cpuOf(all ...*exec.Cmd) (d time.Duration) {
	for _, c := range all {
		d += c.ProcessState.UserTime() + c.ProcessState.SystemTime()
	}
	return d
}

// both runs two programs, on a and b, until they end.
func both(b *bed, hostA, hostB string, a, other *exec.Cmd) (time.Duration, error) {
	if err := b.Host(hostB).Start(other); err != nil {
		return 0, err
	}
	if err := b.Host(hostA).Start(a); err != nil {
		return 0, err
	}
	err := errors.Join(a.Wait(), other.Wait())
	return cpuOf(a, other), err
}

type bodkin struct{ program, idA, idB string }

func (*bodkin) name() string { return "bodkin send" }

func (x *bodkin) prepare(_ context.Context, b *bed) (err error) {
	if x.idA, err = b.id("a"); err != nil {
		return err
	}
	x.idB, err = b.id("b")
	return err
}

func (x *bodkin) send(ctx context.Context, b *bed, file, to string) (time.Duration, error) {
	send := b.command(ctx, "a", x.program, "send", "--relay", "never", "--to", x.idB, file)
	receive := b.command(ctx, "b", x.program, "receive", "--yes", "--from", x.idA, "--output", to)
	return both(b, "a", "b", send, receive)
}

// scp goes to a machine that can be reached, since it has no way to one that cannot.
type scp struct{ client, host string }

const sshPort = 2222

func (*scp) name() string { return "scp" }

func (x *scp) prepare(ctx context.Context, b *bed) error {
	x.client, x.host = filepath.Join(b.dir, "client"), filepath.Join(b.dir, "host")
	for _, key := range []string{x.client, x.host} {
		if out, err := exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
			return fmt.Errorf("ssh-keygen: %w: %s", err, out)
		}
	}
	if _, err := os.Stat("/run/sshd"); err == nil {
		return nil
	}
	// In a mount namespace of ours, sshd finds the folder that it wants.
	if err := syscall.Mount("none", "/run", "tmpfs", 0, ""); err != nil {
		return err
	}
	return os.Mkdir("/run/sshd", 0o755)
}

func (x *scp) send(ctx context.Context, b *bed, file, to string) (time.Duration, error) {
	at := b.Host("outside").Addr()
	sshd := b.command(ctx, "outside", "/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", "-h", x.host, "-p", fmt.Sprint(sshPort),
		"-o", "AuthorizedKeysFile="+x.client+".pub", "-o", "StrictModes=no", "-o", "PidFile=none", "-o", "UsePAM=no",
		"-o", "Subsystem=sftp internal-sftp")
	if err := b.Host("outside").Start(sshd); err != nil {
		return 0, err
	}
	if err := reachable(ctx, b, netip.AddrPortFrom(at, sshPort)); err != nil {
		return 0, err
	}
	c := b.command(ctx, "a", "scp", "-q", "-P", fmt.Sprint(sshPort), "-i", x.client, "-o", "StrictHostKeyChecking=no",
		"-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", file, "root@"+at.String()+":"+to+"/")
	c.Stderr = os.Stderr
	err := b.Host("a").Start(c)
	if err == nil {
		err = c.Wait()
	}
	_ = sshd.Process.Signal(syscall.SIGTERM)
	_ = sshd.Wait()
	return cpuOf(c, sshd), err
}

// reachable waits until something listens.
func reachable(ctx context.Context, b *bed, at netip.AddrPort) error {
	for range 500 {
		c, err := b.Host("a").Dial(ctx, "tcp4", at)
		if err == nil {
			return c.Close()
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("nothing listens at %v", at)
}
