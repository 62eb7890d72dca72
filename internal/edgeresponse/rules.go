package edgeresponse

import "strings"

// rule is where a rule is from. What it wants is in the summary of each problem.
type rule struct {
	document   string
	date       string
	unverified bool // documents do not say that it is checked, or what then happens
}

// The pages of the Amazon CloudFront Developer Guide that have the rules, as of guide.
const (
	guide = "2026-04-13"

	generating   = "CloudFront Developer Guide, Generate HTTP responses in request triggers"
	structure    = "CloudFront Developer Guide, Lambda@Edge event structure"
	allEdge      = "CloudFront Developer Guide, Restrictions on all edge functions"
	lambdaEdge   = "CloudFront Developer Guide, Restrictions on Lambda@Edge"
	testing      = "CloudFront Developer Guide, Test and debug Lambda@Edge functions"
	quotas       = "CloudFront Developer Guide, Quotas"
	functionsDoc = "CloudFront Developer Guide, CloudFront Functions event structure"
)

// rules are all rules, by name.
func rules() map[string]rule {
	return map[string]rule{
		"json":                      {testing, guide, false},
		"utf-8":                     {allEdge, guide, false},
		"object":                    {testing, guide, false},
		"type":                      {testing, guide, false},
		"request-in-response-event": {allEdge, guide, false},
		"request-fields":            {testing, guide, true},
		"unknown-field":             {structure, guide, true},

		"status-required":        {generating, guide, false},
		"status-type":            {generating, guide, false},
		"status-range":           {generating, guide, false},
		"status-read-only":       {lambdaEdge, guide, false},
		"no-content-body":        {generating, guide, false},
		"body-encoding":          {generating, guide, false},
		"body-base64":            {generating, guide, false},
		"response-size":          {generating, guide, false},
		"functions-status":       {functionsDoc, guide, false},
		"functions-status-range": {generating, guide, true},
		"functions-body":         {functionsDoc, guide, false},
		"functions-structure":    {functionsDoc, guide, false},

		"header-structure":         {structure, guide, false},
		"header-name":              {structure, guide, false},
		"header-value":             {testing, guide, false},
		"header-key":               {structure, guide, true},
		"header-disallowed":        {allEdge, guide, false},
		"header-read-only":         {allEdge, guide, false},
		"header-read-only-removed": {allEdge, guide, true},
		"viewer-country":           {lambdaEdge, guide, false},
		"method-read-only":         {structure, guide, false},
		"client-ip":                {structure, guide, true},
		"uri":                      {structure, guide, false},
		"uri-characters":           {allEdge, guide, true},
		"uri-size":                 {allEdge, guide, false},
		"querystring":              {allEdge, guide, false},
		"request-body":             {lambdaEdge, guide, false},
		"request-body-size":        {quotas, guide, false},
		"origin-one":               {structure, guide, false},
		"origin-domain":            {structure, guide, false},
		"origin-path":              {structure, guide, false},
		"origin-port":              {structure, guide, false},
		"origin-protocol":          {structure, guide, false},
		"origin-timeout":           {structure, guide, false},
		"origin-ssl":               {structure, guide, false},
		"origin-headers":           {structure, guide, false},
		"origin-s3-auth":           {structure, guide, false},
		"origin-s3-region":         {structure, guide, false},
		"origin-needs-event":       {structure, guide, true},
	}
}

// disallowed are the header fields that no function may add; a star stands for the rest of the name.
const disallowed = `
	connection expect keep-alive proxy-authenticate proxy-authorization proxy-connection trailer upgrade
	x-accel-buffering x-accel-charset x-accel-limit-rate x-accel-redirect x-amz-cf-* x-amzn-auth
	x-amzn-cf-billing x-amzn-cf-id x-amzn-cf-xff x-amzn-errortype x-amzn-fle-profile x-amzn-header-count
	x-amzn-header-order x-amzn-lambda-integration-tag x-amzn-requestid x-cache x-edge-* x-forwarded-proto
	x-real-ip`

// isDisallowed says whether no function may add a header field of this name, in lower case.
func isDisallowed(name string) bool {
	for _, d := range strings.Fields(disallowed) {
		if stem, any := strings.CutSuffix(d, "*"); d == name || any && strings.HasPrefix(name, stem) {
			return true
		}
	}
	return false
}

// readOnly are the header fields that a function may read and not add, change or take away.
func (v *validator) readOnly() []string {
	switch v.event {
	case ViewerRequest:
		return []string{"cdn-loop", "content-length", "host", "transfer-encoding", "via"}
	case OriginRequest:
		return []string{
			"accept-encoding", "cdn-loop", "content-length", "if-modified-since", "if-none-match", "if-range",
			"if-unmodified-since", "transfer-encoding", "via",
		}
	case OriginResponse:
		return []string{"transfer-encoding", "via"}
	}
	if v.functions() {
		return []string{"warning", "via"}
	}
	return []string{"warning", "via", "content-length", "content-encoding", "transfer-encoding"}
}
