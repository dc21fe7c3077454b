# chimera-tokenize as a user meets it: learning, encoding and back, and what it says when something is wrong.
. "$(dirname "$0")/common.sh"

i=0
while [ $i -lt 40 ]; do
  cat "$text"
  printf 'The house by the river was old. Number %s of them.\n' $i
  i=$((i + 1))
done >english.txt
i=0
while [ $i -lt 400 ]; do
  printf 'नदी के किनारे का घर पुराना था। स्कूल की किताबें और क्षेत्र के लोग %s।\n' $i
  i=$((i + 1))
done >hindi.txt
printf '%s\n' '{"en": "The river is old.", "hi": "नदी पुरानी है।"}' '{"en": "The house", "hi": "लोगों का घर"}' >pairs.jsonl
train="chimera-tokenize train --vocab 700 --out tokenizer.json --input"

printf 'Flags\n'
expect 2 'a command is required' chimera-tokenize
expect 2 'out is required' chimera-tokenize train --input english.txt
expect 2 'input is required' chimera-tokenize train --out tokenizer.json
expect 2 'tokenizer is required' chimera-tokenize encode
expect 2 'expected one of qwen35, o200k' $train english.txt --pretokenizer none
expect 2 'vocab' $train english.txt --vocab many
expect 1 'the vocabulary must have 265 tokens' $train english.txt --vocab 200
expect 1 'cannot open missing.txt' $train english.txt missing.txt
expect 1 'cannot open missing.txt' $train en=missing.txt
expect 1 'expected LANGUAGE=NUMBER with a language of the texts (en), found hi=2' $train english.txt --weight hi=2
expect 1 'found en=much' $train english.txt --weight en=much
expect 1 'expected one above 0' $train english.txt --weight en=0
: >empty.txt
expect 1 'the file is empty' $train empty.txt
printf '{"en": "a", "hi": "b"}\n{"en": "a"}\n' >bad.jsonl
expect 1 'bad.jsonl, line 2: "hi": expected a string, found nothing' $train english.txt hindi.txt --parallel bad.jsonl
printf '{"en": "", "hi": ""}\n' >empty.jsonl
expect 1 'needs aligned sentences, found none' $train english.txt hindi.txt --parallel empty.jsonl
expect 1 'cannot write' $train english.txt --out /dev/null/tokenizer.json
check 'nothing was written' test ! -e tokenizer.json

printf 'Learning\n'
expect 0 'share of hi: 1.000' $train hindi.txt
expect 0 'share of de: 0.250' $train de=english.txt hindi.txt --weight hi=3
expect 0 'saved tokenizer.json' $train english.txt hindi.txt --parallel pairs.jsonl
check 'the report has both languages and their parity' sh -c 'grep -q "^en  .*%" stdout && grep -q "^hi " stdout && grep -q "^parity: [0-9.]* tokens" stdout'
cp tokenizer.json first.json
expect 0 'saved' $train english.txt hindi.txt --parallel pairs.jsonl --threads 1
check 'the same for every number of threads' cmp first.json tokenizer.json
check 'no other file is left' test ! -e tokenizer.json.partial
expect 0 'saved' $train english.txt hindi.txt

printf 'Encoding and back\n'
encode="chimera-tokenize encode --tokenizer first.json"
decode="chimera-tokenize decode --tokenizer first.json"
for file in english.txt hindi.txt "$programs/chimera-tokenize"; do
  $encode "$file" >ids
  check "what comes back is what went in: $(basename "$file")" sh -c "$decode ids | cmp - '$file'"
done
check 'standard input' sh -c "printf 'नदी <|endoftext|>' | $encode | $decode | grep -qx 'नदी <|endoftext|>'"
check 'a special token is one token if asked for' sh -c "printf '<|endoftext|>' | $encode --special | grep -qx '691'"
check 'and text if not' sh -c "test \$(printf '<|endoftext|>' | $encode | wc -w) -gt 1"
check 'no text has no tokens' sh -c "$encode empty.txt | grep -qx ''"
printf '%s\n' '{"text": "the river\n\u0928\ud83e\udd81 \"<|im_end|>"}' '{"special": true, "text": "<|im_end|>"}' '{"text": ""}' >texts.jsonl
check 'JSON lines' sh -c "$encode --jsonl texts.jsonl >ids.jsonl && test \$(wc -l <ids.jsonl) -eq 3"
check 'a special token in JSON lines' sh -c "sed -n 2p ids.jsonl | grep -qx '{\"ids\": \[693\]}'"
check 'no text in JSON lines' sh -c "sed -n 3p ids.jsonl | grep -qx '{\"ids\": \[\]}'"
printf '{"text": "a"}\r\n\n \t\n{"text": "b"}\n\n' >blank.jsonl
check 'blank lines are passed over' sh -c "$encode --jsonl blank.jsonl >blank.ids && test \$(wc -l <blank.ids) -eq 2"
printf '%s\n' '{"text": "the river\nन🦁 \"<|im_end|>"}' '{"text": "<|im_end|>"}' '{"text": ""}' >expected
check 'and back' sh -c "$decode --jsonl ids.jsonl | cmp - expected"
check 'statistics' sh -c "chimera-tokenize stats --tokenizer first.json --input hindi.txt --parallel pairs.jsonl | grep -q '^aligned hi'"
check 'statistics of sentences alone' sh -c "chimera-tokenize stats --tokenizer first.json --parallel pairs.jsonl | grep -q '^parity'"

printf 'Wrong input\n'
expect 1 'cannot open missing.json' chimera-tokenize encode --tokenizer missing.json
expect 1 'name texts with --input' chimera-tokenize stats --tokenizer first.json
expect 1 'english.txt' chimera-tokenize encode --tokenizer english.txt empty.txt
expect 1 'cannot open missing.txt' $encode missing.txt
printf '{"text": "a"}\n{"text": 3}\n' >bad.jsonl
expect 1 'line 2: "text": expected a string, found a number' $encode --jsonl bad.jsonl
printf '{"text": "a"}\n\n{"text": 3}\n' >bad.jsonl
expect 1 'line 3: "text": expected a string' $encode --jsonl bad.jsonl
printf '{"text": "a", "special": 1}\n' >bad.jsonl
expect 1 'line 1: "special": expected a boolean' $encode --jsonl bad.jsonl
printf '{"text": "a\377"}\n' >bad.jsonl
expect 1 'line 1: expected UTF-8' $encode --jsonl bad.jsonl
printf '{"ids": [1, 2]}\n{"ids": [1, 700]}\n' >bad.jsonl
expect 1 'line 2: expected token ids from 0 to 699, found 700' $decode --jsonl bad.jsonl
printf '{"ids": [1.5]}\n' >bad.jsonl
expect 1 'line 1: expected token ids from 0 to 699, found 1.5' $decode --jsonl bad.jsonl
printf '{"ids": "1"}\n' >bad.jsonl
expect 1 'line 1: "ids": expected an array, found a string' $decode --jsonl bad.jsonl
printf '1 -2\n' >bad
expect 1 'found -2' $decode bad
check 'a full disk' sh -c "! $encode english.txt 2>full >/dev/full && grep -q 'cannot write standard output: No space' full"
finish
