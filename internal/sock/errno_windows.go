package sock

import (
	"syscall"

	"golang.org/x/sys/windows"
)

// errnosPassing end no reader. Windows reports an ICMP "port unreachable" to
// whichever read comes next as a reset connection, and a packet that is larger
// than the buffer as an error.
var errnosPassing = []syscall.Errno{
	windows.WSAECONNRESET, windows.WSAENETRESET, windows.WSAECONNREFUSED, windows.WSAEHOSTUNREACH,
	windows.WSAENETUNREACH, windows.WSAENETDOWN, windows.WSAEMSGSIZE, windows.WSAEINTR, windows.WSAENOBUFS,
	windows.ERROR_PORT_UNREACHABLE, windows.ERROR_MORE_DATA,
}

var errnosPortTaken = []syscall.Errno{windows.WSAEADDRINUSE, windows.WSAEADDRNOTAVAIL, windows.WSAEACCES}

var errnosNoFamily = []syscall.Errno{windows.WSAEAFNOSUPPORT, windows.WSAEADDRNOTAVAIL, windows.WSAEPROTONOSUPPORT}

// How a connect fails.
var (
	errnosRefused     = []syscall.Errno{windows.WSAECONNREFUSED, windows.WSAECONNRESET, windows.WSAECONNABORTED}
	errnosUnreachable = []syscall.Errno{windows.WSAEHOSTUNREACH, windows.WSAENETUNREACH, windows.WSAEHOSTDOWN, windows.WSAENETDOWN, windows.WSAEACCES}
	errnosNoRoom      = []syscall.Errno{windows.WSAEMFILE, windows.WSAENOBUFS}
)
