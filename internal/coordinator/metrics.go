package coordinator

import (
	"encoding/binary"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/elsewhere-net/elsewhere/internal/fleet"
	"github.com/elsewhere-net/elsewhere/internal/store"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// metrics are the coordinator's. Their labels come from closed sets, never from a target or an agent.
type metrics struct {
	measurements *prometheus.CounterVec
	replies      *prometheus.CounterVec
	results      *prometheus.CounterVec
	commit       prometheus.Histogram
	auditDropped prometheus.Counter
	refused      *prometheus.CounterVec
	differing    prometheus.Gauge
}

func newMetrics(c *Coordinator) *metrics {
	m := &metrics{
		measurements: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "elsewhere_measurements_closed_total", Help: "Measurements that were closed, by state and outcome. Of several coordinators each counts its own.",
		}, []string{"state", "outcome"}),
		replies: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "elsewhere_job_replies_total", Help: "Answers of agents to jobs, by failure; failure_none is a yes.",
		}, []string{"reply"}),
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "elsewhere_results_total", Help: "Results that came, by what became of them: stored, duplicate, unasked, refused.",
		}, []string{"fate"}),
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "elsewhere_log_commit_seconds", Help: "Time from append to durable in the log.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "elsewhere_calls_refused_total", Help: "Calls that were not let in, by gRPC code.",
		}, []string{"code"}),
		auditDropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "elsewhere_audit_dropped_total", Help: "Audit events that are not in the log, for want of room or because it would not take them.",
		}),
	}
	m.differing = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "elsewhere_states_differ", Help: "1 once coordinators had different states at one position of the log.",
	})
	c.opts.Metrics.MustRegister(
		m.measurements, m.replies, m.results, m.commit, m.auditDropped, m.refused, m.differing,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "elsewhere_watchers", Help: "Watches of measurements and agents under way.",
		}, func() float64 { return float64(c.watching.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "elsewhere_measurements_running", Help: "Measurements that run.",
		}, func() float64 { running, _ := c.store.Running(); return float64(running) }),
		fleetCollector{c.fleet},
		stateCollector{c.store},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// fleetCollector counts agents by state when it is asked.
type fleetCollector struct{ fleet *fleet.Fleet }

var agentsDesc = prometheus.NewDesc("elsewhere_agents", "Agents by state.", []string{"state"}, nil)

func (f fleetCollector) Describe(ch chan<- *prometheus.Desc) { ch <- agentsDesc }

func (f fleetCollector) Collect(ch chan<- prometheus.Metric) {
	world, err := fleet.ParseSelector("world")
	if err != nil {
		return
	}
	// States without an agent are said to be 0: a series that comes and goes cannot be alerted on.
	count := map[pb.AgentState]int{
		pb.AgentState_AGENT_STATE_ONLINE: 0, pb.AgentState_AGENT_STATE_DRAINING: 0, pb.AgentState_AGENT_STATE_OFFLINE: 0,
		pb.AgentState_AGENT_STATE_REVOKED: 0,
	}
	agents, _ := f.fleet.List(world)
	for _, a := range agents {
		count[a.GetState()]++
	}
	for state, n := range count {
		ch <- prometheus.MustNewConstMetric(agentsDesc, prometheus.GaugeValue, float64(n), short(state.String()))
	}
}

// stateCollector tells the position of the log that is folded, and the state there, both of one moment: coordinators
// at equal positions must have equal states. The state is the first 52 bits of its hash, as a float64 has no more.
type stateCollector struct{ store *store.Store }

var (
	positionDesc = prometheus.NewDesc("elsewhere_state_position", "Position of the log that is folded.", nil, nil)
	hashDesc     = prometheus.NewDesc("elsewhere_state_hash", "The first 52 bits of the hash of the state at that position.", nil, nil)
)

func (s stateCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- positionDesc
	ch <- hashDesc
}

func (s stateCollector) Collect(ch chan<- prometheus.Metric) {
	position, hash := s.store.Hash()
	ch <- prometheus.MustNewConstMetric(positionDesc, prometheus.GaugeValue, float64(position))
	ch <- prometheus.MustNewConstMetric(hashDesc, prometheus.GaugeValue, float64(binary.BigEndian.Uint64(hash)>>12))
}

// short is an enum's name as a label: STATE_FINISHED → finished, OUTCOME_OK → ok.
func short(name string) string {
	for _, prefix := range []string{"AGENT_STATE_", "STATE_", "OUTCOME_", "FAILURE_", "GAP_REASON_"} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			return strings.ToLower(rest)
		}
	}
	return strings.ToLower(name)
}
