//go:build unix

package sock

import "syscall"

// errnosPassing end no reader: an ICMP error that the system hands to the
// socket, or a want of memory, says nothing about the next packet.
var errnosPassing = []syscall.Errno{
	syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN,
	syscall.ENETDOWN, syscall.EMSGSIZE, syscall.EINTR, syscall.ENOBUFS, syscall.ENOMEM,
}

var errnosPortTaken = []syscall.Errno{syscall.EADDRINUSE, syscall.EADDRNOTAVAIL, syscall.EACCES}

var errnosNoFamily = []syscall.Errno{syscall.EAFNOSUPPORT, syscall.EADDRNOTAVAIL}

// How a connect fails.
var (
	errnosRefused     = []syscall.Errno{syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE}
	errnosUnreachable = []syscall.Errno{
		syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ENETDOWN, syscall.EPERM, syscall.ENOPROTOOPT,
	}
	errnosNoRoom = []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM}
)
