package natlab_test

import (
	"slices"
	"testing"
	"time"

	"bodkin/natlab"
)

func TestLoopDoesThingsInOrder(t *testing.T) {
	t.Parallel()
	begin := time.Unix(1000, 0)
	l := natlab.NewLoop(begin)
	var did []string
	do := func(what string) func() { return func() { did = append(did, what) } }
	l.After(2*time.Second, do("two"))
	l.After(time.Second, do("one"))
	l.After(time.Second, do("one again"))
	l.At(begin.Add(-time.Hour), do("at once"))
	stopped := l.After(time.Second, do("stopped"))
	moved := l.After(time.Minute, do("moved"))
	moved.Reset(begin.Add(1500 * time.Millisecond))
	if !stopped.Stop() || stopped.Stop() {
		t.Error("a timer stops once")
	}
	l.After(time.Second, func() { l.After(0, do("planned meanwhile")) })
	if l.Run(time.Second, nil); !l.Now().Equal(begin.Add(time.Second)) {
		t.Errorf("after a second it is %v", l.Now())
	}
	if want := []string{"at once", "one", "one again", "planned meanwhile"}; !slices.Equal(did, want) {
		t.Errorf("did %q, want %q", did, want)
	}
	if !l.Run(time.Hour, func() bool { return len(did) == 5 }) || !l.Now().Equal(begin.Add(1500*time.Millisecond)) {
		t.Errorf("did %q by %v", did, l.Now())
	}
	if !l.Next() || l.Next() || did[5] != "two" {
		t.Errorf("did %q", did)
	}
	if l.Run(time.Hour, func() bool { return false }) || !l.Now().Equal(begin.Add(2*time.Second+time.Hour)) {
		t.Errorf("with nothing to do it is %v", l.Now())
	}
}
