// Evaluates PromQL over series that are given as JSON on stdin, with Prometheus' own engine; checks rule files.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

type task struct {
	// A rule file, as Prometheus reads it.
	Rules   string
	Series  []series
	Queries []string
	// When the queries are asked, seconds since the epoch.
	At int64
}

type series struct {
	Metric map[string]string
	// Pairs of seconds since the epoch and value.
	Samples [][2]float64
}

type found struct {
	Metric map[string]string `json:"metric"`
	Value  float64           `json:"value"`
}

type sample struct {
	t int64
	f float64
}

func (s sample) T() int64                      { return s.t }
func (s sample) F() float64                    { return s.f }
func (s sample) H() *histogram.Histogram       { return nil }
func (s sample) FH() *histogram.FloatHistogram { return nil }
func (s sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s sample) Copy() chunks.Sample           { return s }

type memory []storage.Series

func (m memory) Querier(_, _ int64) (storage.Querier, error) { return querier{memory: m}, nil }

type querier struct {
	storage.LabelQuerier
	memory memory
}

func (q querier) Close() error { return nil }

func (q querier) Select(_ context.Context, _ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	kept := &set{at: -1}
	for _, one := range q.memory {
		fits := true
		for _, matcher := range matchers {
			fits = fits && matcher.Matches(one.Labels().Get(matcher.Name))
		}
		if fits {
			kept.series = append(kept.series, one)
		}
	}
	return kept
}

type set struct {
	series []storage.Series
	at     int
}

func (s *set) Next() bool                        { s.at++; return s.at < len(s.series) }
func (s *set) At() storage.Series                { return s.series[s.at] }
func (s *set) Err() error                        { return nil }
func (s *set) Warnings() annotations.Annotations { return nil }

func run() error {
	var asked task
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		return err
	}
	if asked.Rules != "" {
		if _, errs := rulefmt.Parse([]byte(asked.Rules)); len(errs) > 0 {
			return fmt.Errorf("%v", errs)
		}
	}
	var stored memory
	for _, one := range asked.Series {
		var samples []chunks.Sample
		for _, pair := range one.Samples {
			samples = append(samples, sample{int64(pair[0] * 1000), pair[1]})
		}
		stored = append(stored, storage.NewListSeries(labels.FromMap(one.Metric), samples))
	}
	sort.Slice(stored, func(i, j int) bool { return labels.Compare(stored[i].Labels(), stored[j].Labels()) < 0 })
	engine := promql.NewEngine(promql.EngineOpts{
		MaxSamples: 1_000_000, Timeout: time.Minute, LookbackDelta: 5 * time.Minute, EnableAtModifier: true,
	})
	answers := [][]found{}
	for _, query := range asked.Queries {
		prepared, err := engine.NewInstantQuery(context.Background(), stored, nil, query, time.Unix(asked.At, 0))
		if err != nil {
			return fmt.Errorf("%s: %w", query, err)
		}
		vector, err := prepared.Exec(context.Background()).Vector()
		if err != nil {
			return fmt.Errorf("%s: %w", query, err)
		}
		answer := []found{}
		for _, one := range vector {
			answer = append(answer, found{one.Metric.Map(), one.F})
		}
		answers = append(answers, answer)
	}
	return json.NewEncoder(os.Stdout).Encode(answers)
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
