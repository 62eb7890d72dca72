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
	"text/tabwriter"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// report collects what was said, for the matrix at the end.
type report struct {
	all   int // scenarios that there are
	began time.Time

	mu   sync.Mutex
	rows []row
	took time.Duration // until the last row
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
	r.rows, r.took = append(r.rows, one), time.Since(r.began)
}

// matrix is the report as a program reads it.
type matrix struct {
	Scenarios        []line              `json:"scenarios"`
	Right            int                 `json:"right"`
	FalseAccusations int                 `json:"falseAccusations"`
	Seconds          float64             `json:"seconds"` // from the first scenario to the last
	Codes            map[string][]string `json:"codes"`   // the scenarios that prove a finding of that code
	Blocks           map[string][]string `json:"blocks"`  // the same by kind of block
	Unproven         []string            `json:"unproven"`
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
	m := matrix{Scenarios: []line{}, Codes: map[string][]string{}, Blocks: map[string][]string{}, Seconds: r.took.Seconds()}
	for _, one := range r.rows {
		m.Scenarios = append(m.Scenarios, one.line())
		m.FalseAccusations += one.accused
		if one.outcome != right {
			continue
		}
		m.Right++
		for _, f := range one.scenario.want.findings { // what the row is about, not what is said besides
			prove(m.Codes, shortCode(f.GetCode()), one.scenario.name)
			if f.GetBlock() != 0 {
				prove(m.Blocks, shortOf(f.GetBlock(), "BLOCK_KIND_"), one.scenario.name)
			}
		}
	}
	m.Unproven = m.unproven()
	return m
}

// prove notes that a scenario proves something, once.
func prove(by map[string][]string, what, scenario string) {
	if !slices.Contains(by[what], scenario) {
		by[what] = append(by[what], scenario)
	}
}

// right is the outcome of a scenario that is as it should be.
const right = "right"

// unproven are the codes and kinds of blocks without a scenario that is right.
func (m matrix) unproven() []string {
	names := []string{}
	for number := range pb.FindingCode_name {
		if name := shortCode(pb.FindingCode(number)); number != 0 && len(m.Codes[name]) == 0 {
			names = append(names, name)
		}
	}
	for number := range pb.BlockKind_name {
		if name := shortOf(pb.BlockKind(number), "BLOCK_KIND_"); number != 0 && len(m.Blocks[name]) == 0 {
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

// String is the matrix as people read it: what was said of each scenario, and which scenarios prove each finding.
func (m matrix) String() string {
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	fmt.Fprintln(table, "scenario\t| fault\t| proved by\t| said\t| outcome\t| exit\t| took\t| result")
	for _, l := range m.Scenarios {
		said := make([]string, 0, len(l.Findings))
		for _, f := range l.Findings {
			said = append(said, f.String())
		}
		fmt.Fprintf(table, "%s\t| %s\t| %s\t| %s\t| %s\t| %d\t| %.1f s\t| %s\n",
			l.Name, l.Fault, l.Proof, cmp.Or(strings.Join(said, "; "), "–"), l.Outcome, l.Exit, l.Seconds, l.Result)
	}
	_ = table.Flush() // to memory
	fmt.Fprintln(table, "\nfinding\t| proved by")
	for _, name := range slices.Sorted(maps.Keys(m.Codes)) {
		fmt.Fprintf(table, "%s\t| %d: %s\n", name, len(m.Codes[name]), strings.Join(m.Codes[name], " "))
	}
	for _, name := range slices.Sorted(maps.Keys(m.Blocks)) {
		fmt.Fprintf(table, "block %s\t| %d: %s\n", name, len(m.Blocks[name]), strings.Join(m.Blocks[name], " "))
	}
	_ = table.Flush()
	fmt.Fprintf(&b, "\n%d scenarios in %.0f s, %d right, %d false accusations", len(m.Scenarios), m.Seconds, m.Right, m.FalseAccusations)
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
