import io.opentelemetry.api.common.AttributeKey;
import io.opentelemetry.api.common.Attributes;
import io.opentelemetry.api.common.KeyValue;
import io.opentelemetry.api.common.Value;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.SpanContext;
import io.opentelemetry.api.trace.SpanKind;
import io.opentelemetry.api.trace.StatusCode;
import io.opentelemetry.api.trace.TraceFlags;
import io.opentelemetry.api.trace.TraceState;
import io.opentelemetry.api.trace.Tracer;
import io.opentelemetry.context.Context;
import io.opentelemetry.sdk.autoconfigure.AutoConfiguredOpenTelemetrySdk;
import io.opentelemetry.sdk.common.CompletableResultCode;
import io.opentelemetry.sdk.trace.IdGenerator;
import io.opentelemetry.sdk.trace.data.SpanData;
import io.opentelemetry.sdk.trace.export.SpanExporter;
import java.util.Collection;
import java.util.Locale;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;

/**
 * A client of the tests: sends a known set of spans with the OpenTelemetry SDK for Java, set up by OTEL_* variables.
 *
 * <p>Arguments: COUNT SEED. ids and times depend on them alone, so two runs send the same. It ends with 0 if every
 * export succeeded.
 */
public final class Client {
  private Client() {}

  private static String traceId(long seed, long number) {
    return String.format(Locale.ROOT, "%016x%016x", seed, number);
  }

  private static final class Ids implements IdGenerator {
    private final long seed;
    private long traces;
    private long spans;

    Ids(long seed) {
      this.seed = seed;
    }

    @Override
    public String generateTraceId() {
      return traceId(seed, ++traces);
    }

    @Override
    public String generateSpanId() {
      return String.format(Locale.ROOT, "%016x", seed << 40 | ++spans);
    }
  }

  /** Hands everything on and remembers whether any of it failed. */
  private record Remembering(SpanExporter exporter, AtomicBoolean failed) implements SpanExporter {
    @Override
    public CompletableResultCode export(Collection<SpanData> spans) {
      CompletableResultCode result = exporter.export(spans);
      result.whenComplete(() -> failed.compareAndSet(false, !result.isSuccess()));
      return result;
    }

    @Override
    public CompletableResultCode flush() {
      return exporter.flush();
    }

    @Override
    public CompletableResultCode shutdown() {
      return exporter.shutdown();
    }
  }

  private static void order(Tracer tracer, long seed, int number) {
    long begin = 1_750_000_000_123_456_789L + number * 1_000_000L;
    TraceState state = TraceState.builder().put("other", "2").put("vendor", "1").build();
    Context context = Context.root();
    if (number % 2 == 0) {
      context =
          context.with(
              Span.wrap(
                  SpanContext.createFromRemoteParent(
                      traceId(seed, 1_000_000 + number), "0100000000000000", TraceFlags.getSampled(), state)));
    }
    Attributes attributes =
        Attributes.builder()
            .put("text", "Größe M8\t尺寸 🔩 \0 \"\\")
            .put("empty", "")
            .put("yes", true)
            .put("no", false)
            .put("zero", 0)
            .put("large", 9_007_199_254_740_993L + number)
            .put("least", Long.MIN_VALUE)
            .put("most", Long.MAX_VALUE)
            .put("double", 0.1 + number)
            .put("tiny", Double.MIN_VALUE)
            .put("huge", Double.MAX_VALUE)
            .put("endless", Double.NEGATIVE_INFINITY)
            .put("nan", Double.NaN)
            .put("texts", "nuts", "", "Größe")
            .put("flags", true, false)
            .put("ints", 1, -1, 9_007_199_254_740_995L)
            .put("doubles", 0.25, 1.5e300)
            .put("none", new String[0])
            .put(AttributeKey.valueKey("bytes"), Value.of(new byte[] {0, 0x7f, (byte) 0x80, (byte) 0xff}))
            .put(
                AttributeKey.valueKey("map"),
                Value.of(
                    KeyValue.of("ä", Value.of("ö")),
                    KeyValue.of("mixed", Value.of(Value.of(1), Value.of("zwei"), Value.of(true)))))
            .build();
    Span server =
        tracer
            .spanBuilder("POST /orders/{id} Größe 尺寸 🔩 " + number)
            .setParent(context)
            .setSpanKind(SpanKind.SERVER)
            .setStartTimestamp(begin, TimeUnit.NANOSECONDS)
            .setAllAttributes(attributes)
            .startSpan();
    Span insert =
        tracer
            .spanBuilder("INSERT orders")
            .setParent(context.with(server))
            .setSpanKind(SpanKind.CLIENT)
            .setStartTimestamp(begin + 1000, TimeUnit.NANOSECONDS)
            .addLink(server.getSpanContext(), Attributes.builder().put("why", "same basket").build())
            .addLink(SpanContext.create(traceId(seed, 77), "0000000000000007", TraceFlags.getDefault(), state))
            .startSpan();
    for (int attempt = 0; attempt < 3; attempt++) {
      insert.addEvent(
          "retried ↻",
          Attributes.builder().put("try", attempt).put("cause", "deadlock").build(),
          begin + 2 + attempt,
          TimeUnit.NANOSECONDS);
    }
    if (number % 3 == 0) {
      insert.setStatus(StatusCode.ERROR, "Verklemmung ⚠");
    } else {
      insert.setStatus(StatusCode.OK);
    }
    insert.end(begin + 1_000_000_000L, TimeUnit.NANOSECONDS);
    server.end(begin + 2_000_000_000L, TimeUnit.NANOSECONDS);
  }

  private static void run(Tracer tracer, int number) {
    long begin = 1_750_000_100_987_654_321L + number * 1_000_000_000L;
    tracer
        .spanBuilder("openai.assistant.run")
        .setNoParent()
        .setSpanKind(SpanKind.CLIENT)
        .setStartTimestamp(begin, TimeUnit.NANOSECONDS)
        .setAttribute("llm.request.type", "chat")
        .setAttribute("http.response.body", System.getenv("RUN_PAYLOAD").replace("%d", "" + number))
        .startSpan()
        .end(begin + 1_000_000_000L, TimeUnit.NANOSECONDS);
  }

  public static void main(String[] arguments) {
    int count = Integer.parseInt(arguments[0]);
    long seed = Long.parseLong(arguments[1]);
    AtomicBoolean failed = new AtomicBoolean();
    var sdk =
        AutoConfiguredOpenTelemetrySdk.builder()
            .addTracerProviderCustomizer((provider, properties) -> provider.setIdGenerator(new Ids(seed)))
            .addSpanExporterCustomizer((exporter, properties) -> new Remembering(exporter, failed))
            .disableShutdownHook()
            .build()
            .getOpenTelemetrySdk();
    Tracer orders = sdk.tracerBuilder("shop").setInstrumentationVersion("2.0").setSchemaUrl("urn:shop").build();
    Tracer runs =
        sdk.tracerBuilder("opentelemetry.instrumentation.openai.v1").setInstrumentationVersion("0.33.12").build();
    for (int number = 0; number < count; number++) {
      order(orders, seed, number);
      if (number % 10 == 0) {
        run(runs, number);
      }
    }
    boolean ended = sdk.shutdown().join(60, TimeUnit.SECONDS).isSuccess();
    System.exit(ended && !failed.get() ? 0 : 1);
  }
}
