// A client of the tests: sends a known set of spans with the OpenTelemetry SDK for JavaScript, set up by OTEL_*
// variables.
//
//     node index.js COUNT SEED
//
// ids and times depend on the arguments alone, so two runs send the same. It ends with 0 if every export succeeded.
'use strict';

const { ROOT_CONTEXT, SpanKind, SpanStatusCode, TraceFlags, createTraceState, trace } = require('@opentelemetry/api');
const { BasicTracerProvider, BatchSpanProcessor } = require('@opentelemetry/sdk-trace-base');

const EXPORTERS = {
  grpc: '@opentelemetry/exporter-trace-otlp-grpc',
  'http/protobuf': '@opentelemetry/exporter-trace-otlp-proto',
  'http/json': '@opentelemetry/exporter-trace-otlp-http',
};

const hex = (number, digits) => number.toString(16).padStart(digits, '0');
const traceId = (seed, number) => hex(seed, 16) + hex(number, 16);

/** Seconds and nanoseconds, as the SDK takes times. */
const at = (seconds, nanos) => [seconds + Math.floor(nanos / 1e9), nanos % 1e9];

class Ids {
  constructor(seed) {
    Object.assign(this, { seed, traces: 0, spans: 0 });
    this.generateTraceId = () => traceId(seed, ++this.traces);
    this.generateSpanId = () => hex(seed, 6) + hex(++this.spans, 10);
  }
}

function order(tracer, seed, number) {
  const nanos = 123456789 + number * 1e6;
  const traceState = createTraceState('vendor=1,other=2');
  let context = ROOT_CONTEXT;
  if (number % 2 === 0) {
    context = trace.setSpanContext(context, {
      traceId: traceId(seed, 1000000 + number),
      spanId: '0100000000000000',
      traceFlags: TraceFlags.SAMPLED,
      traceState,
      isRemote: true,
    });
  }
  const server = tracer.startSpan(
    `POST /orders/{id} Größe 尺寸 🔩 ${number}`,
    {
      kind: SpanKind.SERVER,
      startTime: at(1750000000, nanos),
      attributes: {
        text: 'Größe M8\t尺寸 🔩 \0 "\\',
        empty: '',
        yes: true,
        no: false,
        zero: 0,
        // A number of JavaScript: beyond 2^53 only what a double holds. 2^60 is such an integer.
        large: 2 ** 53 - 1 - number,
        least: -(2 ** 53 - 1),
        double: 0.1 + number,
        tiny: Number.MIN_VALUE,
        texts: ['nuts', '', 'Größe'],
        flags: [true, false],
        ints: [1, -1, 2 ** 53],
        doubles: [0.25, 1.5e-300],
        none: [],
        bytes: new Uint8Array([0, 0x7f, 0x80, 0xff]),
        map: { ä: 'ö', mixed: [1, 'zwei', true] },
      },
    },
    context,
  );
  const insert = tracer.startSpan(
    'INSERT orders',
    {
      kind: SpanKind.CLIENT,
      startTime: at(1750000000, nanos + 1000),
      links: [
        { context: server.spanContext(), attributes: { why: 'same basket' } },
        { context: { traceId: traceId(seed, 77), spanId: hex(7, 16), traceFlags: TraceFlags.NONE, traceState } },
      ],
    },
    trace.setSpan(context, server),
  );
  for (let attempt = 0; attempt < 3; attempt++) {
    insert.addEvent('retried ↻', { try: attempt, cause: 'deadlock' }, at(1750000000, nanos + 2 + attempt));
  }
  insert.setStatus(
    number % 3 === 0 ? { code: SpanStatusCode.ERROR, message: 'Verklemmung ⚠' } : { code: SpanStatusCode.OK },
  );
  insert.end(at(1750000001, nanos));
  server.end(at(1750000002, nanos));
}

function run(tracer, number) {
  const span = tracer.startSpan(
    'openai.assistant.run',
    {
      kind: SpanKind.CLIENT,
      startTime: at(1750000100 + number, 987654321),
      attributes: {
        'llm.request.type': 'chat',
        'http.response.body': process.env.RUN_PAYLOAD.replace('%d', number),
      },
    },
    ROOT_CONTEXT,
  );
  span.end(at(1750000101 + number, 987654321));
}

async function main() {
  const [count, seed] = process.argv.slice(2).map(Number);
  const { OTLPTraceExporter } = require(EXPORTERS[process.env.OTEL_EXPORTER_OTLP_PROTOCOL]);
  const exporter = new OTLPTraceExporter();
  const send = exporter.export.bind(exporter);
  exporter.export = (spans, done) =>
    send(spans, (result) => {
      if (result.code !== 0) {
        console.error(result.error);
        process.exitCode = 1;
      }
      done(result);
    });
  const provider = new BasicTracerProvider({
    idGenerator: new Ids(seed),
    spanProcessors: [new BatchSpanProcessor(exporter)],
  });
  const orders = provider.getTracer('shop', '2.0', { schemaUrl: 'urn:shop' });
  const runs = provider.getTracer('opentelemetry.instrumentation.openai.v1', '0.33.12');
  for (let number = 0; number < count; number++) {
    order(orders, seed, number);
    if (number % 10 === 0) run(runs, number);
  }
  await provider.shutdown();
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
