// Package testmain is for the TestMain of packages whose tests wait more than they
// compute: for links that take their time, and for programs.
package testmain

import (
	"flag"
	"runtime"
	"strconv"
)

// MoreAtOnce runs more tests side by side than there are processors, unless -parallel
// says how many. It parses the flags.
func MoreAtOnce() {
	flag.Parse()
	if p := flag.Lookup("test.parallel"); p != nil && p.Value.String() == p.DefValue {
		_ = p.Value.Set(strconv.Itoa(3 * runtime.GOMAXPROCS(0)))
	}
}
