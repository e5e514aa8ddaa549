package bodkin

import (
	"testing"
	"time"
)

func TestAsleep(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		wall, awake time.Duration
		want        bool
	}{
		{"awake", time.Second, time.Second, false},
		{"busy", 6 * time.Second, 6 * time.Second, false},
		{"asleep, and the clock stood still", time.Hour, time.Second, true},
		{"asleep, and it went on", time.Hour, time.Hour, true},
		{"the wall clock was set back", -time.Hour, time.Second, false},
		{"stopped while the wall clock was set back", -time.Hour, time.Minute, true},
		{"a nap", 8 * time.Second, time.Second, false},
	} {
		if got := asleep(c.wall, c.awake, time.Second); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
