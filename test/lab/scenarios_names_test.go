package lab

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// differentNames are names about which places hear different things.
func differentNames() []scenario {
	return slices.Concat(steered(), outOfDate(), madeUp(), rewritten(), forgedOnTheWay())
}

// answers is a finding about different answers.
func answers(code pb.FindingCode, blame pb.Blame, regions ...string) *pb.Finding {
	return &pb.Finding{Code: code, Regions: regions, Stage: pb.Stage_STAGE_DNS, Blame: blame}
}

// suspect is a finding about answers that the zone did not give. The agents of a region share a resolver, and are one
// perspective.
func suspect(blame pb.Blame, regions ...string) *pb.Finding {
	f := answers(pb.FindingCode_FINDING_CODE_ANSWERS_SUSPECT, blame, regions...)
	f.Confidence = pb.Confidence_CONFIDENCE_MEDIUM
	return f
}

// steered are answers that differ because the zone's own servers say so, each in its way.
func steered() []scenario {
	perRegion := make([]proof, 0, len(regions()))
	for r, region := range regions() {
		perRegion = append(perRegion,
			proof{region[:2] + "-1", "dig", "www." + geoZone, "NOERROR " + geoAddress(r)},
			proof{region[:2] + "-2", "dig", "@" + geoServer + " www." + geoZone, "NOERROR " + geoAddress(r)})
	}
	return []scenario{
		{
			name: "geo", says: "the zone's own server gives each region an answer of its own",
			proofs: perRegion,
			ask:    "dns www." + geoZone + " A",
			want:   fine().noting(answers(pb.FindingCode_FINDING_CODE_ANSWERS_GEO, 0, everywhere()...)),
		},
		{
			name: "unsynced", says: "one of the zone's two servers, another program, still has the old data",
			proofs: []proof{
				{"us-1 ap-1", "dig", "@" + newServer + " www." + splitZone, "NOERROR 203.0.113.221"},
				{"us-1 ap-1", "dig", "@" + oldServer + " www." + splitZone, "NOERROR 203.0.113.222"},
			},
			ask: "dns www." + splitZone + " A --authoritative",
			want: fails(answers(pb.FindingCode_FINDING_CODE_ANSWERS_UNSYNCED, pb.Blame_BLAME_ZONE, everywhere()...)).
				mentioning("203.0.113.221", "203.0.113.222", oldServer),
		},
	}
}

// outOfDate are answers that were right once.
func outOfDate() []scenario {
	return []scenario{
		{
			name: "stale", says: "the resolver of one region still has the address from before a change",
			before: func(ctx context.Context, w *world) error {
				return errors.Join(
					w.prime(ctx, "ap-1", "www."+movedZone),
					w.update(ctx, "update delete www."+movedZone+" A", "update add www."+movedZone+" 300 A 203.0.113.225"),
					second(ctx))
			},
			proofs: []proof{
				{"ap-1 ap-2", "dig", "www." + movedZone, "NOERROR 203.0.113.223"},
				{"us-1 eu-1 sa-1", "dig", "www." + movedZone, "NOERROR 203.0.113.225"},
				{"ap-1", "dig", "@" + movedServer + " www." + movedZone, "NOERROR 203.0.113.225"},
			},
			ask:  "dns www." + movedZone + " A",
			want: warns(answers(pb.FindingCode_FINDING_CODE_ANSWERS_STALE, pb.Blame_BLAME_RESOLVER, "ap-south")).mentioning("203.0.113.223"),
		},
		{
			name: "negative", says: "the resolver of one region remembers that a name did not exist",
			before: func(ctx context.Context, w *world) error {
				return errors.Join(
					w.prime(ctx, "sa-1", "new."+movedZone),
					w.update(ctx, "update add new."+movedZone+" 300 A 203.0.113.227"),
					second(ctx))
			},
			proofs: []proof{
				{"sa-1 sa-2", "dig", "new." + movedZone, "NXDOMAIN"},
				{"us-1 eu-1 ap-1", "dig", "new." + movedZone, "NOERROR 203.0.113.227"},
				{"sa-1", "dig", "@" + movedServer + " new." + movedZone, "NOERROR 203.0.113.227"},
			},
			ask:  "dns new." + movedZone + " A",
			want: warns(answers(pb.FindingCode_FINDING_CODE_ANSWERS_STALE, pb.Blame_BLAME_RESOLVER, "sa-east")),
		},
		{
			name: "deleted", says: "the resolver of one region still has a name that is no more",
			before: func(ctx context.Context, w *world) error {
				return errors.Join(w.prime(ctx, "eu-1", "old."+movedZone), w.update(ctx, "update delete old."+movedZone), second(ctx))
			},
			proofs: []proof{
				{"eu-1 eu-2", "dig", "old." + movedZone, "NOERROR 203.0.113.224"},
				{"us-1 ap-1 sa-1", "dig", "old." + movedZone, "NXDOMAIN"},
				{"eu-1", "dig", "@" + movedServer + " old." + movedZone, "NXDOMAIN"},
			},
			ask: "dns old." + movedZone + " A",
			want: fails(wrongName(pb.FindingCode_FINDING_CODE_UNRESOLVABLE, pb.Failure_FAILURE_DNS_NXDOMAIN, "ap-south", "sa-east", "us-east")).
				besides(answers(pb.FindingCode_FINDING_CODE_ANSWERS_STALE, pb.Blame_BLAME_RESOLVER, "eu-west")),
		},
		{
			name: "ns-change", says: "the parent names a server that the zone itself does not",
			proofs: []proof{
				{"us-1 ap-1", "dig", "@" + newServer + " www." + swapZone, "NOERROR 203.0.113.226"},
				{"us-1 ap-1", "dig", "@" + oldServer + " www." + swapZone, "NOERROR 203.0.113.226"},
			},
			ask:  "dns www." + swapZone + " A --authoritative",
			want: fine(),
		},
	}
}

// madeUp are answers that the zone never gave.
func madeUp() []scenario {
	return []scenario{
		{
			name: "injected", says: "the resolver of one region answers with a server that has no certificate for the name",
			hosts:          []host{at("203.0.113.228"), own("203.0.113.229", until(later, "blocked.example")).called("-")},
			resolverFaults: []resolverFault{{"eu-west", "203.0.113.229"}},
			proofs: []proof{
				{"eu-1 eu-2", "dig", "injected." + zone, "NOERROR 203.0.113.229"},
				{"us-1 ap-1 sa-1", "dig", "injected." + zone, "NOERROR 203.0.113.228"},
				{"eu-1", "dig", "@" + authoritative + " injected." + zone, "NOERROR 203.0.113.228"},
				{"eu-1", "openssl", "203.0.113.229:443", "hostname mismatch"},
			},
			ask:  "dns NAME A",
			want: fails(suspect(pb.Blame_BLAME_RESOLVER, "eu-west")).mentioning("203.0.113.229"),
		},
		{
			name: "unexplained", says: "two regions' resolvers answer differently, and nobody gets to the zone's own server",
			resolverFaults: []resolverFault{{"ap-south", "203.0.113.232"}}, lies: "www." + muteZone,
			faults: []fault{{"router", "ip saddr 10.0.0.0/8 ip daddr " + muteServer + " counter drop"}},
			proofs: []proof{
				{"ap-1 ap-2", "dig", "www." + muteZone, "NOERROR 203.0.113.232"},
				{"us-1 eu-1 sa-1", "dig", "www." + muteZone, "NOERROR 203.0.113.231"},
				{"us-1 ap-1", "dig", "@" + muteServer + " www." + muteZone, "no reply"},
			},
			ask:  "dns www." + muteZone + " A",
			want: warns(answers(pb.FindingCode_FINDING_CODE_ANSWERS_UNEXPLAINED, pb.Blame_BLAME_UNKNOWN, "ap-south")),
		},
	}
}

// rewritten are names that do not exist, and that resolvers have an address for.
func rewritten() []scenario {
	const some, everyone = "mistyped." + someRewrite, "mistyped." + allRewrite
	return []scenario{
		{
			name: "nxdomain-rewritten", says: "the resolver of one region gives its search page's address for a name that does not exist",
			hosts: []host{own(searchPage, until(later, "search.provider.example")).called("-")},
			proofs: []proof{
				{"eu-1 eu-2", "dig", some, "NOERROR " + searchPage},
				{"us-1 ap-1 sa-1", "dig", some, "NXDOMAIN"},
				{"eu-1", "dig", "@" + topServer + " " + some, "NXDOMAIN"},
				{"eu-1", "dig", "nothing-of-the-kind." + someRewrite, "NOERROR " + searchPage},
			},
			ask: "dns " + some + " A",
			want: fails(
				suspect(pb.Blame_BLAME_RESOLVER, rewriting),
				wrongName(pb.FindingCode_FINDING_CODE_UNRESOLVABLE, pb.Failure_FAILURE_DNS_NXDOMAIN, but(rewriting)...),
			).mentioning(searchPage, "a name that does not exist"),
		},
		{
			name: "nxdomain-rewritten-all", says: "the resolvers of all regions do",
			proofs: []proof{
				{all, "dig", everyone, "NOERROR " + searchPage},
				{all, "dig", "@" + topServer + " " + everyone, "NXDOMAIN"},
				{all, "dig", "nothing-of-the-kind." + allRewrite, "NOERROR " + searchPage},
			},
			ask: "dns " + everyone + " A",
			want: fails(suspect(pb.Blame_BLAME_RESOLVER, everywhere()...)).
				mentioning(searchPage, "a name that does not exist"),
		},
	}
}

// forgedOnTheWay are answers that somebody between an agent and its resolver gives before the resolver does.
func forgedOnTheWay() []scenario {
	const made = "198.18.200.92"
	forged := func(s scenario, region int, claims bool, servers ...string) scenario {
		name, home, agents := s.name+"."+zone, s.hosts[0].addr.String(), strings.Join(agentsIn(regions()[region]), " ")
		for _, server := range servers {
			s.detours = append(s.detours, detour{from: agents, to: server, delay: 10 * time.Millisecond, forges: forgery{name, made, claims}})
		}
		s.proofs = []proof{
			{all, "dig", "+tcp " + name, "NOERROR " + home},
			{agents, "dig", name, "NOERROR " + made},
			{agents, "replies", name, made + ", " + home},
		}
		s.want = fails(suspect(pb.Blame_BLAME_PATH, regions()[region])).
			mentioning(made, "replies with different data")
		return s
	}
	return []scenario{
		forged(scenario{
			name: "forged", says: "somebody on the way from one region to its resolver answers first",
			hosts: []host{at("198.18.200.91")}, ask: "dns NAME A",
		}, 1, false, resolverOf(1)),
		forged(scenario{
			name: "forged-everywhere", says: "the same to whatever server one region asks, the zone's own too",
			hosts: []host{at("198.18.200.93")}, ask: "dns NAME A",
		}, 3, false, resolverOf(3), authoritative),
		forged(scenario{
			name: "forged-with-authority", says: "the same, claiming to be the zone's own server, and nothing listens where it leads",
			hosts: []host{at("198.18.200.94")}, ask: "tcp NAME:443",
		}, 2, true, resolverOf(2), authoritative),
	}
}
