package lab

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// report collects what was said, for the matrix at the end.
type report struct {
	all int // scenarios that there are

	mu   sync.Mutex
	rows []row
}

// row is one scenario's line.
type row struct {
	scenario    scenario
	measurement *pb.Measurement
	took        time.Duration
	exit        int
	outcome     string // of the scenario
	accused     int
}

func (r *report) add(one row) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows = append(r.rows, one)
}

// matrix is the report as a program reads it.
type matrix struct {
	Scenarios        []line         `json:"scenarios"`
	Right            int            `json:"right"`
	FalseAccusations int            `json:"falseAccusations"`
	Codes            map[string]int `json:"codes"`  // how many scenarios prove a finding of that code
	Blocks           map[string]int `json:"blocks"` // the same by kind of block
	Unproven         []string       `json:"unproven"`
}

// line is one scenario.
type line struct {
	Name     string      `json:"name"`
	Fault    string      `json:"fault"`
	Ask      string      `json:"ask"`
	Proof    string      `json:"proof"`
	Findings []statement `json:"findings"`
	Outcome  string      `json:"outcome"`
	Exit     int         `json:"exit"`
	Seconds  float64     `json:"seconds"`
	Result   string      `json:"result"`
}

// statement is what a finding says, without its words.
type statement struct {
	Code       string   `json:"code"`
	Severity   string   `json:"severity"`
	Regions    []string `json:"regions,omitempty"`
	Agents     []string `json:"agents,omitempty"`
	Addresses  []string `json:"addresses,omitempty"`
	Failure    string   `json:"failure,omitempty"`
	Block      string   `json:"block,omitempty"`
	Blame      string   `json:"blame,omitempty"`
	Confidence string   `json:"confidence,omitempty"`
	Prediction string   `json:"prediction,omitempty"` // cause and status
}

// matrix sums up.
func (r *report) matrix() matrix {
	m := matrix{Scenarios: []line{}, Codes: map[string]int{}, Blocks: map[string]int{}}
	for _, one := range r.rows {
		l := one.line()
		m.Scenarios = append(m.Scenarios, l)
		m.FalseAccusations += one.accused
		if one.outcome != right {
			continue
		}
		m.Right++
		proven, blocks := map[string]bool{}, map[string]bool{}
		for _, f := range one.scenario.want.findings { // what the row is about, not what is said besides
			proven[shortCode(f.GetCode())] = true
			if f.GetBlock() != 0 {
				blocks[shortOf(f.GetBlock(), "BLOCK_KIND_")] = true
			}
		}
		for c := range proven {
			m.Codes[c]++
		}
		for b := range blocks {
			m.Blocks[b]++
		}
	}
	m.Unproven = m.unproven()
	return m
}

// right is the outcome of a scenario that is as it should be.
const right = "right"

// unproven are the codes and kinds of blocks without a scenario that is right.
func (m matrix) unproven() []string {
	names := []string{}
	for number := range pb.FindingCode_name {
		if name := shortCode(pb.FindingCode(number)); number != 0 && m.Codes[name] == 0 {
			names = append(names, name)
		}
	}
	for number := range pb.BlockKind_name {
		if name := shortOf(pb.BlockKind(number), "BLOCK_KIND_"); number != 0 && m.Blocks[name] == 0 {
			names = append(names, "block "+name)
		}
	}
	slices.Sort(names)
	return names
}

// shortOf is an enum's value as people read it, "" if it is not set.
func shortOf[E interface {
	fmt.Stringer
	~int32
}](value E, prefix string) string {
	if value == 0 {
		return ""
	}
	return strings.ToLower(strings.TrimPrefix(value.String(), prefix))
}

func (r row) line() line {
	l := line{
		Findings: []statement{},
		Name:     r.scenario.name, Fault: r.scenario.says, Ask: "elsewhere " + r.scenario.command(), Proof: r.scenario.proof(),
		Outcome: shortOf(r.measurement.GetVerdict().GetOutcome(), "OUTCOME_"), Exit: r.exit, Seconds: r.took.Seconds(), Result: r.outcome,
	}
	for _, f := range r.measurement.GetVerdict().GetFindings() {
		s := statement{
			Code: shortCode(f.GetCode()), Severity: shortOf(f.GetSeverity(), "SEVERITY_"),
			Regions: f.GetRegions(), Agents: f.GetAgents(), Addresses: f.GetAddresses(),
			Failure: strings.TrimPrefix(shortOf(f.GetFailure(), "FAILURE_"), "none"), Block: shortOf(f.GetBlock(), "BLOCK_KIND_"),
			Blame: shortOf(f.GetBlame(), "BLAME_"), Confidence: shortOf(f.GetConfidence(), "CONFIDENCE_"),
		}
		if p := f.GetPrediction(); p != nil {
			s.Prediction = strings.TrimSpace(shortOf(p.GetCause(), "ORIGIN_CAUSE_") + " " + p.GetStatus())
		}
		l.Findings = append(l.Findings, s)
	}
	return l
}

// proof says in short how the fault was proved: the first proof that shows it.
func (s scenario) proof() string {
	p := s.proofs[0]
	return fmt.Sprintf("%s: %s", p.tool, p.sees)
}

// String is a finding in a few words: "regional_block ap-south drop blame=path".
func (s statement) String() string {
	about := s.Regions
	if len(s.Agents) > 0 && s.Severity == "warn" {
		about = s.Agents
	}
	where := strings.Join(about, " ")
	switch len(about) {
	case len(regions()):
		where = "everywhere"
	case len(agentIDs()):
		where = "all agents"
	}
	blame := ""
	if s.Blame != "" && s.Blame != "unknown" {
		blame = "blame=" + s.Blame
	}
	return strings.Join(strings.Fields(strings.Join([]string{s.Code, where, cmp.Or(s.Prediction, s.Block, s.Failure), blame}, " ")), " ")
}

// String is the matrix as people read it.
func (m matrix) String() string {
	var b strings.Builder
	cells := func(cells ...any) {
		fmt.Fprintf(&b, "%-20s | %-104s | %-34.34s | %-100s | %-12s | %4v | %6v | %s\n", cells...)
	}
	cells("scenario", "fault", "proved by", "said", "outcome", "exit", "took", "result")
	for _, l := range m.Scenarios {
		said := make([]string, 0, len(l.Findings))
		for _, f := range l.Findings {
			said = append(said, f.String())
		}
		cells(l.Name, l.Fault, l.Proof, cmp.Or(strings.Join(said, "; "), "–"), l.Outcome, l.Exit, fmt.Sprintf("%.1f s", l.Seconds), l.Result)
	}
	b.WriteString("\nproved by how many scenarios:\n")
	for _, name := range slices.Sorted(maps.Keys(m.Codes)) {
		fmt.Fprintf(&b, "%4d  %s\n", m.Codes[name], name)
	}
	for _, name := range slices.Sorted(maps.Keys(m.Blocks)) {
		fmt.Fprintf(&b, "%4d  block %s\n", m.Blocks[name], name)
	}
	fmt.Fprintf(&b, "%d scenarios, %d right, %d false accusations", len(m.Scenarios), m.Right, m.FalseAccusations)
	return b.String()
}

// conclude prints the matrix and keeps it, and fails if all scenarios ran and some finding or kind of block
// has none.
func (r *report) conclude(t *testing.T) {
	slices.SortFunc(r.rows, func(a, b row) int { return cmp.Compare(a.scenario.name, b.scenario.name) })
	m := r.matrix()
	t.Logf("the matrix:\n%s", m)
	if err := keep("lab.json", m); err != nil {
		t.Error(err)
	}
	if len(r.rows) == r.all && !*faultsOnly && len(m.Unproven) > 0 {
		t.Errorf("no scenario proves %s", strings.Join(m.Unproven, ", "))
	}
}

// keep writes figures to a file in $LAB_OUT, or else beside the binaries.
func keep(name string, figures any) error {
	text, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		return err
	}
	dir := cmp.Or(os.Getenv("LAB_OUT"), "../../bin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name), append(text, '\n'), 0o644)
}
