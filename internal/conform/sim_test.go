package conform_test

import (
	"testing"

	"bodkin/internal/conform"
	"bodkin/natlab"
)

// verify measures boxes and compares.
func verify(t *testing.T, bed conform.Bed, chain []natlab.NAT) {
	t.Helper()
	got, err := conform.Measure(t.Context(), bed, chain)
	if err != nil {
		t.Fatal(err)
	}
	want := conform.Expect(chain)
	if bed != (conform.Sim{}) {
		want = want.Quick()
	}
	for _, d := range got.Differences(want) {
		t.Error(d)
	}
}

func TestPresetsAreWhatTheirNamesSayInVirtualTime(t *testing.T) {
	t.Parallel()
	for _, p := range natlab.Presets() {
		t.Run(string(p), func(t *testing.T) {
			t.Parallel()
			verify(t, conform.Sim{}, p.Boxes())
		})
	}
}
