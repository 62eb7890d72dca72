package render

import (
	"strings"
	"testing"
)

// TestNoCellIsAFormula: what agents and targets say is opened in spreadsheets.
func TestNoCellIsAFormula(t *testing.T) {
	var out strings.Builder
	cells := []string{"=1+1", "+1+1", "-2+3", "@SUM(1)", "-12.5", "+3", "a=b", "", "10.0.0.1", "-evil.example"}
	if err := writeCSVRows(&out, [][]string{cells}); err != nil {
		t.Fatal(err)
	}
	if want := "'=1+1,'+1+1,'-2+3,'@SUM(1),-12.5,+3,a=b,,10.0.0.1,'-evil.example\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
