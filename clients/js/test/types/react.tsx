// What the compiler accepts and refuses in components. Checked by `npm run types`.
import { expectTypeOf } from 'vitest';
import { z } from 'zod';
import { createPipeClient, defineEvents, type PipewardError } from '../../src/react/index.js';

const events = defineEvents({ message: z.object({ text: z.string() }), moved: z.string().transform(Number) });
const { PipeProvider, usePipe, usePresence, usePush, useAction, useStatus, refreshPipeAuth } = createPipeClient({
  url: 'wss://edge.example',
  events,
  onPipeRevoked: (pipe) => expectTypeOf(pipe).toEqualTypeOf<string>(),
  onAllPipesRevoked: () => undefined,
});

export function Team() {
  const { publish, status, error } = usePipe('team', {
    message: ({ data, sender }) => {
      expectTypeOf(data).toEqualTypeOf<{ text: string }>();
      expectTypeOf(sender).toEqualTypeOf<string | null>();
    },
    moved: ({ data }) => expectTypeOf(data).toEqualTypeOf<number>(),
  });
  expectTypeOf(status).toEqualTypeOf<'idle' | 'subscribing' | 'subscribed' | 'denied' | 'revoked'>();
  expectTypeOf(error).toEqualTypeOf<PipewardError | undefined>();
  void publish('message', { text: 'hello' });
  void publish('moved', '7');
  usePipe(null);
  usePipe('only-to-publish').publish('message', { text: 'hello' });
  usePush('message', ({ data }) => expectTypeOf(data.text).toEqualTypeOf<string>());
  expectTypeOf(usePresence('team').members[0]!.user).toEqualTypeOf<string>();
  const { run, result } = useAction<{ text: string }, number>('count');
  expectTypeOf(run({ text: 'hello' })).toEqualTypeOf<Promise<number>>();
  expectTypeOf(result).toEqualTypeOf<number | undefined>();
  void refreshPipeAuth();

  // @ts-expect-error no such event
  usePipe('team', { massage: () => undefined });
  // @ts-expect-error a handler is a function
  usePipe('team', { message: 'hello' });
  // @ts-expect-error no such event
  void publish('massage', { text: 'hello' });
  // @ts-expect-error wrong payload
  void publish('message', 'hello');
  // @ts-expect-error what travels is the text
  void publish('moved', 7);
  // @ts-expect-error no such event
  usePush('massage', () => undefined);
  // @ts-expect-error wrong arguments
  void run({ txt: 'hello' });
  // @ts-expect-error a pipe has a name
  usePipe(undefined);

  return (
    <PipeProvider>
      <p>{useStatus()}</p>
    </PipeProvider>
  );
}
