// Tokens per second of llama.cpp through node-llama-cpp, for `tests.bench.llama_cpp`; one JSON line.
// Arguments: the module's main file, a GGUF file, threads, sessions, tokens of each, the prompt's ids as JSON.
const [main, modelPath, threads, sessions, tokens, prompt] = process.argv.slice(2);
const {getLlama} = await import(main);
const llama = await getLlama({gpu: false, build: "never", maxThreads: Number(threads), logLevel: "error"});
const model = await llama.loadModel({modelPath});
const context = await model.createContext({
    sequences: Number(sessions), contextSize: 1024, threads: {ideal: Number(threads), min: Number(threads)}
});

async function generate(sequence, first, count) {
    const ids = [];
    for await (const id of sequence.evaluate([first, ...JSON.parse(prompt)], {temperature: 0, yieldEogToken: true})) {
        if (ids.push(id) >= count) break;
    }
    return ids;
}

const all = Array.from({length: Number(sessions)}, () => context.getSequence());
await Promise.all(all.map((sequence) => generate(sequence, 1, 8)));
await Promise.all(all.map((sequence) => sequence.clearHistory()));
const began = performance.now();
const answers = await Promise.all(all.map((sequence, k) => generate(sequence, 1 + k, Number(tokens))));
const seconds = (performance.now() - began) / 1000;
const count = answers.reduce((sum, ids) => sum + ids.length, 0);
console.log(JSON.stringify({tokens_per_s: count / seconds, ids: answers[0]}));
process.exit(0);
