package cli

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"bodkin/internal/matrix"
)

// docs/nat-matrix.md says what the presets are and what the population is made of.
func TestMatrixPageSaysWhatThereIs(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../docs/nat-matrix.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	table, _, _ := strings.Cut(output(t, "lab", "presets"), "\n\n")
	if !strings.Contains(page, "```\n"+table+"\n```") {
		t.Error("docs/nat-matrix.md has another table than `bodkin lab presets`")
	}
	for _, a := range matrix.Assumptions() {
		row := fmt.Sprintf("| %s | %.3g %% | %.3g %% | %.3g %% |", a.Text, 100*a.Low, 100*a.Mid, 100*a.High)
		if !strings.Contains(page, row) {
			t.Errorf("docs/nat-matrix.md has no row %s", row)
		}
	}
}
