// A client of the tests: sends a known set of spans with the OpenTelemetry SDK for Go, set up by OTEL_* variables.
//
//	client COUNT SEED
//
// ids and times depend on the arguments alone, so two runs send the same. It ends with 0 if every export succeeded.
package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

type ids struct {
	sync.Mutex
	seed, traces, spans uint64
}

func (i *ids) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	i.Lock()
	i.traces++
	found := traceID(i.seed, i.traces)
	i.Unlock()
	return found, i.NewSpanID(ctx, found)
}

func (i *ids) NewSpanID(context.Context, trace.TraceID) (found trace.SpanID) {
	i.Lock()
	defer i.Unlock()
	i.spans++
	binary.BigEndian.PutUint64(found[:], i.seed<<40|i.spans)
	return found
}

func traceID(seed, number uint64) (found trace.TraceID) {
	binary.BigEndian.PutUint64(found[:8], seed)
	binary.BigEndian.PutUint64(found[8:], number)
	return found
}

func exporter(ctx context.Context) (*otlptrace.Exporter, error) {
	switch protocol := os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL"); protocol {
	case "grpc":
		return otlptracegrpc.New(ctx)
	case "http/protobuf":
		return otlptracehttp.New(ctx)
	default:
		return nil, fmt.Errorf("no exporter for %q", protocol)
	}
}

func order(ctx context.Context, tracer trace.Tracer, seed uint64, number int) {
	begin := time.Unix(1_750_000_000, 123_456_789).Add(time.Duration(number) * time.Millisecond)
	state, _ := trace.ParseTraceState("vendor=1,other=2")
	if number%2 == 0 {
		ctx = trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: traceID(seed, uint64(1_000_000+number)), SpanID: trace.SpanID{0: 1}, TraceFlags: trace.FlagsSampled,
			TraceState: state, Remote: true,
		}))
	}
	ctx, server := tracer.Start(ctx, fmt.Sprintf("POST /orders/{id} Größe 尺寸 🔩 %d", number),
		trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(begin), trace.WithAttributes(
			attribute.String("text", "Größe M8\t尺寸 🔩 \x00 \"\\"), attribute.String("empty", ""),
			attribute.Bool("yes", true), attribute.Bool("no", false), attribute.Int("zero", 0),
			attribute.Int64("large", 9_007_199_254_740_993+int64(number)), attribute.Int64("least", math.MinInt64),
			attribute.Int64("most", math.MaxInt64), attribute.Float64("double", 0.1+float64(number)),
			attribute.Float64("tiny", math.SmallestNonzeroFloat64), attribute.Float64("huge", math.MaxFloat64),
			attribute.Float64("endless", math.Inf(-1)), attribute.Float64("nan", math.NaN()),
			attribute.StringSlice("texts", []string{"nuts", "", "Größe"}), attribute.BoolSlice("flags", []bool{true, false}),
			attribute.Int64Slice("ints", []int64{1, -1, 9_007_199_254_740_995}),
			attribute.Float64Slice("doubles", []float64{0.25, 1.5e300}), attribute.StringSlice("none", []string{}),
			attribute.ByteSlice("bytes", []byte{0, 0x7f, 0x80, 0xff}),
			attribute.Map("map", attribute.String("ä", "ö"), attribute.Slice("mixed", attribute.IntValue(1),
				attribute.StringValue("zwei"), attribute.BoolValue(true)))))
	_, insert := tracer.Start(ctx, "INSERT orders", trace.WithSpanKind(trace.SpanKindClient),
		trace.WithTimestamp(begin.Add(time.Microsecond)), trace.WithLinks(
			trace.Link{SpanContext: server.SpanContext(), Attributes: []attribute.KeyValue{attribute.String("why", "same basket")}},
			trace.Link{SpanContext: trace.NewSpanContext(trace.SpanContextConfig{
				TraceID: traceID(seed, 77), SpanID: trace.SpanID{7: 7}, TraceState: state})}))
	for try := range 3 {
		insert.AddEvent("retried ↻", trace.WithTimestamp(begin.Add(time.Duration(try+2)*time.Nanosecond)),
			trace.WithAttributes(attribute.Int("try", try), attribute.String("cause", "deadlock")))
	}
	if number%3 == 0 {
		insert.SetStatus(codes.Error, "Verklemmung ⚠")
	} else {
		insert.SetStatus(codes.Ok, "")
	}
	insert.End(trace.WithTimestamp(begin.Add(time.Second)))
	server.End(trace.WithTimestamp(begin.Add(2 * time.Second)))
}

func run(ctx context.Context, tracer trace.Tracer, number int) {
	begin := time.Unix(1_750_000_100, 987_654_321).Add(time.Duration(number) * time.Second)
	_, span := tracer.Start(ctx, "openai.assistant.run", trace.WithSpanKind(trace.SpanKindClient),
		trace.WithTimestamp(begin), trace.WithAttributes(attribute.String("llm.request.type", "chat"),
			attribute.String("http.response.body", fmt.Sprintf(os.Getenv("RUN_PAYLOAD"), number))))
	span.End(trace.WithTimestamp(begin.Add(time.Second)))
}

func send(count int, seed uint64) error {
	ctx := context.Background()
	var failed error
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { failed = err }))
	to, err := exporter(ctx)
	if err != nil {
		return err
	}
	provider := sdk.NewTracerProvider(sdk.WithBatcher(to, sdk.WithBlocking()), sdk.WithIDGenerator(&ids{seed: seed}))
	orders := provider.Tracer("shop", trace.WithInstrumentationVersion("2.0"), trace.WithSchemaURL("urn:shop"),
		trace.WithInstrumentationAttributes(attribute.String("scope", "ö")))
	runs := provider.Tracer("opentelemetry.instrumentation.openai.v1", trace.WithInstrumentationVersion("0.33.12"))
	for number := range count {
		order(ctx, orders, seed, number)
		if number%10 == 0 {
			run(ctx, runs, number)
		}
	}
	if err := provider.Shutdown(ctx); err != nil {
		return err
	}
	return failed
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: client COUNT SEED")
		os.Exit(2)
	}
	count, _ := strconv.Atoi(os.Args[1])
	seed, _ := strconv.ParseUint(os.Args[2], 10, 24)
	if err := send(count, seed); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
